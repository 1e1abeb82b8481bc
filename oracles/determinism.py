"""End a search whose subject answers one call in two ways, with both answers.

Hypothesis runs a failing example again, and calls a test flaky that then passes. Here that is a defect of the subject.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis.errors import Flaky

from oracles.decision.type_errors import CALL, refuse
from oracles.evaluations import Memory, remembered
from oracles.properties import same_every_time
from oracles.report.disagreement import Disagreement
from oracles.self_consistency import contradiction_findings
from oracles.verdict import SELF_CONSISTENCY, Result, Setting, Verdict


class NotDeterministic(BaseException):
    """Ends a search: the subject gave two answers to the same call. Hypothesis would try to repeat an `Exception`."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result


def require_repetition(failure: Exception, memory: Memory, setting: Setting, property_name: str) -> None:
    """Call the subject again where it failed, and end the search if it gives another answer.

    The property that repeats calls says more of an answer that changes, so it may go on.
    """
    if property_name == same_every_time.__name__ and isinstance(failure, Disagreement):
        return
    memory.repeat(remembered(setting.subject, memory))
    require_determinism(memory, setting, property_name, None if isinstance(failure, Disagreement) else failure)


def require_determinism(
    memory: Memory, setting: Setting, property_name: str, cause: BaseException | None = None
) -> None:
    """End the search if the subject gave two answers to the same call."""
    findings = contradiction_findings(memory, setting.subject, setting.oracles, setting.numerics)
    if findings:
        raise NotDeterministic(
            Result(setting.subject.name, property_name, tuple(findings), setting=setting, cause=cause)
        )


def unrepeated(last_failure: Exception | None, flaky: Flaky) -> Result:
    """Return the refusal of a subject whose failure did not repeat, from what failed last."""
    failure: BaseException = last_failure or flaky
    if isinstance(failure, BaseExceptionGroup):  # what Hypothesis caught
        failure = failure.exceptions[0]
    reason = "not deterministic: this failed once, and not again for the same point"
    if isinstance(failure, Disagreement):
        worst, result = failure.result.worst, failure.result
        assert worst is not None
        evidence = replace(worst.evidence, reason=f"{reason}; {worst.evidence.reason}".rstrip("; "))
        finding = replace(worst, verdict=Verdict.WRONG, oracle=SELF_CONSISTENCY, evidence=evidence)
        return replace(result, findings=(finding,))
    return Result(
        "the subject",
        "repetition",
        (refuse(CALL, f"{reason}: {type(failure).__name__}: {failure}"),),
        cause=failure,
    )
