"""The exception that carries a refusal: verdict, evidence, diagnosis, a report, JSON and a script to reproduce it."""

from __future__ import annotations

import json
import warnings
from functools import cached_property

from oracles.report import text
from oracles.verdict import Evidence, Result, Verdict


class Disagreement(AssertionError):
    """The subject is refused. ``str()`` reads like a bug report.

    Attributes:
        result: everything that was found at the point.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return text.text(self.result, self.diagnosis)

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict found."""
        return self.result.worst.verdict if self.result.worst else Verdict.VACUOUS

    @property
    def evidence(self) -> Evidence:
        """The evidence of the gravest finding."""
        return self.result.worst.evidence if self.result.worst else Evidence()

    @cached_property
    def diagnosis(self) -> str:
        """The defect by name, or "no pattern found". Worked out when first asked for: a search refuses many points."""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # its experiments may divide by zero: a test's "error" filter is not for them
            return text.diagnosis_of(self.result)

    def to_json(self) -> str:
        """Return the report as JSON: verdict, evidence, diagnosis, findings, and the point as exact hex floats."""
        return json.dumps(text.document(self.result, self.diagnosis), indent=2)

    def script(self) -> str:
        """Return a stand-alone Python file that shows the disagreement without Hypothesis and without this package."""
        from oracles.report.reproduction import script

        return script(self.result, str(self))


def require(result: Result) -> Result:
    """Return the result, or raise it as a `Disagreement` where it refuses the subject."""
    if result.refuses:
        raise Disagreement(result) from result.cause
    return result
