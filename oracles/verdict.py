"""What the judge can say, and with what evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """The possible verdicts, from the best to the worst."""

    AGREES = "agrees"
    KINK = "kink"
    VACUOUS = "vacuous"
    UNSTABLE = "unstable"
    ORACLES_CONFLICT = "oracles_conflict"
    WRONG = "wrong"

    @property
    def refuses(self) -> bool:
        """Whether this verdict raises: the subject, or the evidence against it, is not as it should be."""
        return self in (Verdict.WRONG, Verdict.UNSTABLE, Verdict.ORACLES_CONFLICT)


_SEVERITY = {verdict: rank for rank, verdict in enumerate(Verdict)}


@dataclass(frozen=True)
class Evidence:
    """The entry that shows it.

    Attributes:
        index: where, in the array named by the finding.
        subject: what the subject gave there.
        oracles: what each oracle gave there.
        allowance: how far rounding could have moved this entry.
        refused: how many entries are refused, of how many.
        reason: what is wrong in words, where values alone do not say it ("shape (3,), expected (1, 3)").
    """

    index: tuple[int, ...] = ()
    subject: float | None = None
    oracles: Mapping[str, float] = field(default_factory=dict)
    allowance: float | None = None
    refused: tuple[int, int] = (0, 0)
    reason: str = ""


@dataclass(frozen=True)
class Finding:
    """The verdict on one array of the subject ("output", or a primal's cotangent) by one oracle.

    Attributes:
        quantity: "output", or the name of the primal whose cotangent was judged.
        oracle: who judged: an oracle's name, or "itself" where the subject is held against itself.
        ratio: worst |error| / allowance over the entries: up to 1 is rounding.
        resolves: the relative error in one entry that would have been refused here (median over the entries).
    """

    quantity: str
    oracle: str
    verdict: Verdict
    ratio: float = 0.0
    resolves: float = 0.0
    evidence: Evidence = Evidence()


@dataclass(frozen=True)
class Result:
    """Everything that was found at one point.

    Attributes:
        subject: the subject's name.
        check: the property that was checked.
        findings: one for every array and oracle.
        not_claimed: primals for which the subject claims no gradient; nothing was judged there.
    """

    subject: str
    check: str
    findings: tuple[Finding, ...]
    not_claimed: tuple[str, ...] = ()

    @property
    def worst(self) -> Finding | None:
        """The gravest finding, by verdict and then by ratio; ``None`` where nothing was judged."""
        return max(self.findings, key=lambda f: (_SEVERITY[f.verdict], f.ratio), default=None)

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict; vacuous where nothing was judged."""
        return self.worst.verdict if self.worst else Verdict.VACUOUS

    @property
    def ratio(self) -> float:
        """The worst error over all findings, in units of what rounding allows."""
        return max((f.ratio for f in self.findings), default=0.0)


class Disagreement(AssertionError):
    """The subject is refused. ``verdict``, ``evidence`` and ``result`` say why; ``str()`` reads like a bug report."""

    def __init__(self, result: Result, text: str) -> None:
        super().__init__(text)
        self.result = result

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict found."""
        return self.result.verdict

    @property
    def evidence(self) -> Evidence:
        """The evidence of the gravest finding."""
        return self.result.worst.evidence if self.result.worst else Evidence()
