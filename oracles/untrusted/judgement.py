"""The outcome of a job of a subject that is not trusted, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oracles.environment import installed_versions
from oracles.report.disagreement import to_text
from oracles.untrusted.schema import SCHEMA_VERSION
from oracles.untrusted.statuses import Status


@dataclass(frozen=True)
class Judgement:
    """What is known of a subject that is not trusted.

    Attributes:
        status: the outcome.
        reason: it in a sentence.
        subject, reference: what was judged, and by what.
        verdict: of `oracles.check` at the point that decided; "" if no point was judged.
        diagnosis: the defect in words, if it was asked for.
        report: the report of a refusal, if a diagnosis was asked for.
        points: what was judged: shapes, verdict, error in units of the tolerance, detected error, judged entries.
        calls: how many calls the subject answered.
        protections: what its process was kept from, see `oracles.untrusted.sandbox.Protection`.
        seed: of all draws; the same seed draws the same points.
        seconds: how long it took.
    """

    status: Status
    reason: str
    subject: str
    reference: tuple[str, ...]
    verdict: str = ""
    diagnosis: str = ""
    report: str = field(default="", repr=False)
    points: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    calls: int = 0
    protections: tuple[str, ...] = ()
    seed: int = 0
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the subject is right at every point that was judged."""
        return self.status is Status.PASSED

    def document(self, number: str | int | None = None, job: str | None = None) -> dict[str, Any]:
        """Return it in the types of JSON, as `oracles.untrusted.schema.JUDGEMENT` has it, given a job's id and hash."""
        return {
            "schema": SCHEMA_VERSION, "id": number, "job": job, "subject": self.subject,
            "reference": list(self.reference), "status": str(self.status), "reason": self.reason,
            "verdict": self.verdict, "diagnosis": self.diagnosis,
            "points": [dict(point) for point in self.points], "calls": self.calls,
            "protections": list(self.protections), "seed": self.seed, "seconds": round(self.seconds, 4),
            "versions": installed_versions(),
        }  # fmt: skip

    def to_json(self) -> str:
        """Return it as text of JSON."""
        return to_text(self.document())
