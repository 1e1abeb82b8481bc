"""The exception that carries a refusal: verdict, evidence, diagnosis, a report, JSON and a script to reproduce it."""

from __future__ import annotations

import json
import warnings
from functools import cached_property

from oracles.diagnosis.refusals import diagnosis_of
from oracles.report.document import document
from oracles.report.reproduction import script
from oracles.report.text import report_text
from oracles.verdict import Evidence, Result, Verdict


class Disagreement(AssertionError):
    """The subject is refused. ``str()`` reads like a bug report.

    Attributes:
        result: all findings at the point.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return report_text(self.result, self.diagnosis)

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict."""
        return self.result.worst.verdict if self.result.worst else Verdict.VACUOUS

    @property
    def evidence(self) -> Evidence:
        """The evidence of the gravest finding."""
        return self.result.worst.evidence if self.result.worst else Evidence()

    @cached_property
    def diagnosis(self) -> str:
        """The defect in words, or "no pattern found".

        Computed when it is first read, since it takes many evaluations and a search refuses many points.
        """
        with warnings.catch_warnings():
            # The experiments may divide by zero. Under pytest's "error" filter that would raise inside the subject.
            warnings.simplefilter("ignore")
            return str(diagnosis_of(self.result))

    def to_json(self) -> str:
        """Return the report as JSON: verdict, evidence, diagnosis, findings, and the point as exact hex floats."""
        return json.dumps(document(self.result, self.diagnosis), indent=2)

    def script(self) -> str:
        """Return a stand-alone Python file that shows the disagreement without Hypothesis and without this package."""
        return script(self.result, str(self))


def require(result: Result) -> Result:
    """Return the result, or raise a `Disagreement` if it refuses the subject.

    Raises:
        Disagreement: with what the subject raised as its cause, where it did.
    """
    if result.refuses:
        raise Disagreement(result) from result.cause
    return result
