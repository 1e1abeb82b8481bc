"""What the judge can say, and with what evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from oracles.rule import Primals, Rule


class Verdict(StrEnum):
    """The possible verdicts, from the best to the worst.

    AGREES: no further from the oracles than rounding could move it.
    KINK: at a point without a derivative, a subgradient other than the oracles'.
    VACUOUS: rounding alone could move the gradient by its own size: nothing can be seen here.
    UNSTABLE: right as a formula, but it loses digits that need not be lost.
    ORACLES_CONFLICT: the oracles contradict one another, and nothing could arbitrate.
    WRONG: no rounding explains it.
    """

    AGREES = "agrees"
    KINK = "kink"
    VACUOUS = "vacuous"
    UNSTABLE = "unstable"
    ORACLES_CONFLICT = "oracles_conflict"
    WRONG = "wrong"


_SEVERITY = {verdict: rank for rank, verdict in enumerate(Verdict)}


@dataclass(frozen=True)
class Evidence:
    """The entry that shows it.

    Attributes:
        index: where, in the array named by the finding.
        subject: what the subject gave there.
        oracles: what each oracle gave there.
        tolerance: how far rounding could have moved this entry.
        enclosure: (midpoint, radius) of the exact value there, where ball arithmetic could tell.
        refused: how many entries are refused, of how many.
        reason: what is wrong in words: "shape (3,), expected (1, 3)", "no subgradient", who agrees with whom.
        fix: lines of code that mend it, where that is known.
    """

    index: tuple[int, ...] = ()
    subject: float | None = None
    oracles: Mapping[str, float] = field(default_factory=dict)
    tolerance: float | None = None
    enclosure: tuple[float, float] | None = None
    refused: tuple[int, int] = (0, 0)
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Finding:
    """The verdict on one array of the subject ("output", or a primal's cotangent) by one oracle.

    Attributes:
        quantity: "output", or the name of the primal whose cotangent was judged.
        oracle: who judged: an oracle's name, or "self-consistency" where the subject is held against itself.
        refuses: whether the subject is refused for it. A subgradient where none is declared, or digits that torch
            and JAX lose as well, are worth telling and no reason to refuse.
        ratio: worst |error| / tolerance over the entries: up to 1 is rounding.
        detects_above: the relative error in one entry that would have been refused here (median over the entries).
    """

    quantity: str
    oracle: str
    verdict: Verdict
    refuses: bool = False
    ratio: float = 0.0
    detects_above: float = 0.0
    evidence: Evidence = Evidence()

    @property
    def is_cotangent(self) -> bool:
        """Whether a cotangent was judged, and not an output."""
        return self.quantity.split("[")[0] != "output"

    @property
    def gravity(self) -> tuple[bool, int, float]:
        """Orders findings from the lightest to the gravest."""
        return self.refuses, _SEVERITY[self.verdict], self.ratio


@dataclass(frozen=True)
class Setting:
    """Where a result was found, so that it can be looked into and reproduced."""

    subject: Rule
    oracles: tuple[Rule, ...]
    primals: Primals
    delta: Any
    precision: str


@dataclass(frozen=True)
class Result:
    """Everything that was found at one point.

    Attributes:
        subject: the subject's name.
        check: the property that was checked.
        findings: one for every array and oracle.
        not_claimed: primals for which the subject claims no gradient; nothing was judged there.
        notes: what is worth telling and no reason to refuse.
        cause: what the subject raised, where it did.
        setting: the point, the subject and the oracles.
    """

    subject: str
    check: str
    findings: tuple[Finding, ...]
    not_claimed: tuple[str, ...] = ()
    setting: Setting | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()
    cause: BaseException | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        """Say who accepted what, what would have been refused, and what was not judged at all."""
        by_oracle: dict[str, list[str]] = {}
        for f in self.findings:
            if not f.refuses and f.quantity not in by_oracle.setdefault(f.oracle, []):
                by_oracle[f.oracle].append(f.quantity)
        seen = "; ".join(f"{', '.join(quantities)} by {oracle}" for oracle, quantities in by_oracle.items())
        lines = [f"{self.subject}: {self.verdict}  [{self.check}]", f"  judged: {seen or 'nothing'}"]
        if self.detects_above:
            lines.append(
                f"  error {self.ratio:.2g} of what rounding allows; an error of {self.detects_above:.0e} is refused"
            )
        told = {f"  {f.quantity}: {f.evidence.reason}": None for f in self.findings if f.verdict is Verdict.UNSTABLE}
        lines += told
        if self.not_claimed:
            lines.append(f"  no gradient claimed, nothing judged: {', '.join(self.not_claimed)}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    @property
    def worst(self) -> Finding | None:
        """The gravest finding; ``None`` where nothing was judged."""
        return max(self.findings, key=lambda finding: finding.gravity, default=None)

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict; vacuous where nothing was judged, nothing could be seen, or no gradient is claimed."""
        if not self.findings or all(f.verdict is Verdict.VACUOUS for f in self.findings):
            return Verdict.VACUOUS
        if self.not_claimed and not self.refuses and not any(f.is_cotangent for f in self.findings):
            return Verdict.VACUOUS
        seeing = [f for f in self.findings if f.verdict is not Verdict.VACUOUS]
        return max(seeing, key=lambda finding: finding.gravity).verdict

    @property
    def refuses(self) -> bool:
        """Whether any finding refuses the subject."""
        return any(f.refuses for f in self.findings)

    @property
    def ratio(self) -> float:
        """The worst error over all findings, in units of what rounding allows."""
        return max((f.ratio for f in self.findings), default=0.0)

    @property
    def detects_above(self) -> float:
        """The relative error in one entry that would have been refused: the median over what was seen."""
        seen = sorted(f.detects_above for f in self.findings if f.detects_above)
        return seen[len(seen) // 2] if seen else 0.0
