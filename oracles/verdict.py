"""The types of a result: verdict, evidence, findings, and the point at which they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import TypeAlias

from oracles.lazy_modules import LazyModule
from oracles.numerics import Numerics
from oracles.rule import Output, Primals, Rule

html = LazyModule("oracles.report.html")  # for notebooks alone


class Verdict(StrEnum):
    """The possible verdicts, from the best to the worst.

    AGREES: the subject differs from the oracles by no more than rounding can explain.
    KINK: there is no derivative at this point, and the subject returned another subgradient than the oracles.
    VACUOUS: rounding alone can change the gradient by its own size, or no oracle has a value; nothing was judged.
    NOT_INVARIANT: the values are right, but equal rows or equal calls do not give the same bits, as was requested.
    UNSTABLE: the formula is right, but it loses digits that another evaluation keeps.
    ORACLES_CONFLICT: the oracles contradict one another, and ball arithmetic could not arbitrate.
    WRONG: rounding does not explain the difference.
    """

    AGREES = "agrees"
    KINK = "kink"
    VACUOUS = "vacuous"
    NOT_INVARIANT = "not_invariant"
    UNSTABLE = "unstable"
    ORACLES_CONFLICT = "oracles_conflict"
    WRONG = "wrong"


Index: TypeAlias = tuple[int, ...]
Gravity: TypeAlias = tuple[bool, int, bool, float]
# The oracle of findings that compare the subject with itself.
SELF_CONSISTENCY = "self-consistency"
# The oracle that is ball arithmetic on the subject's own primal.
EXACT = "exact"
# In place of a verdict, where nothing is known of the subject.
NOT_JUDGED = "not judged"
# In place of a verdict, where what would have judged is not installed.
SKIPPED = "skipped"
# The position in the enumeration, which runs from the best to the worst.
_SEVERITY = {verdict: rank for rank, verdict in enumerate(Verdict)}


@dataclass(frozen=True)
class Evidence:
    """The entry with the largest error in units of its tolerance, and the reason of a verdict in words.

    Attributes:
        index: the entry's index in the array that the finding names.
        subject: the subject's value there; ``None`` if no number shows the defect.
        oracles: each oracle's value there, by the oracle's name.
        tolerance: how far this entry may be off: by rounding, and by what the oracle itself may be off.
        enclosure: (midpoint, radius) of the exact value there, where ball arithmetic could compute it.
        refused: (number of refused entries, number of entries).
        reason: what is wrong, in words: "shape (3,), expected (1, 3)".
        fix: lines of code that repair it, if they are known.
        diagnosis: the defect, where the decision itself has confirmed which it is.
    """

    index: tuple[int, ...] = ()
    subject: float | None = None
    oracles: Mapping[str, float] = field(default_factory=dict)
    tolerance: float | None = None
    enclosure: tuple[float, float] | None = None
    refused: tuple[int, int] = (0, 0)
    reason: str = ""
    fix: str = ""
    diagnosis: str = ""


@dataclass(frozen=True)
class Finding:
    """The verdict of one oracle on one array of the subject.

    Attributes:
        quantity: "output" ("output[0]" … of several), or the name of the primal whose cotangent was judged.
        oracle: the oracle's name, or "self-consistency" if the subject was compared with itself.
        verdict: the verdict.
        refuses: whether the subject is refused for it. Some verdicts are reported without a refusal: another
            subgradient where none is declared, or lost digits that torch and JAX lose as well.
        ratio: the largest |error| / tolerance over the entries: up to 1 is rounding.
        detects_above: the smallest relative error in one entry that would have been refused here, by median over the
            entries that rounding cannot move by their own size; 0 if there are none.
        evidence: the entry that shows it.
        judged: (number of judged entries, number of entries). An entry is not judged where the oracle has no finite
            value and no limit ±∞, or where rounding alone can move the entry by its own size; of what is vacuous,
            where it can by more than `RESOLUTION_LIMIT` of it.
        unknown: the indices of the first entries that are not judged.
        unbounded: whether no entry has a value of the oracle and a finite tolerance, so that any number would pass.
        is_output: whether an output was judged under a name of its user's: ``output.loss``, ``aux["accuracy"]``.
        open: how many entries could be anything of the size of the array's largest, as far as the oracle tells.
    """

    quantity: str
    oracle: str
    verdict: Verdict
    refuses: bool = False
    ratio: float = 0.0
    detects_above: float = 0.0
    evidence: Evidence = Evidence()
    judged: tuple[int, int] = (0, 0)
    unknown: tuple[Index, ...] = ()
    unbounded: bool = False
    is_output: bool = False
    open: int = 0

    @property
    def is_cotangent(self) -> bool:
        """Whether a cotangent was judged, and not an output."""
        return not self.is_output and self.quantity.split("[")[0] != "output"

    @property
    def relative_tolerance(self) -> float:
        """The tolerance relative to the gradient: the median of `detects_above`, else of the entry that is refused."""
        values = [abs(v) for v in self.evidence.oracles.values() if 0 < abs(v) < inf]
        if self.detects_above or not values or self.evidence.tolerance is None:
            return self.detects_above
        return self.evidence.tolerance / values[0]

    @property
    def gravity(self) -> Gravity:
        """The sort key of findings, from the least to the most severe.

        Of the same verdict, an output is graver than a cotangent: a wrong forward makes its cotangents wrong too.
        """
        return self.refuses, _SEVERITY[self.verdict], not self.is_cotangent, self.ratio


@dataclass(frozen=True)
class Setting:
    """The point of a result, and who was compared there, so that the result can be reproduced and diagnosed.

    Attributes:
        subject: the Rule under test.
        oracles: the Rules that it was compared with.
        primals, delta: the point, in the subject's dtypes.
        numerics: what the subject stores, accumulates and multiplies in.
    """

    subject: Rule
    oracles: tuple[Rule, ...]
    primals: Primals
    delta: Output
    numerics: Numerics

    @property
    def precision(self) -> str:
        """The precision in which the subject stores."""
        return self.numerics.store


@dataclass(frozen=True)
class Result:
    """All findings at one point.

    Attributes:
        subject: the subject's name.
        property_name: the judged property of `oracles.properties`, or "check" for a result of `oracles.check`.
        findings: one for every array and oracle.
        not_claimed: primals for which the subject returns no gradient, and outputs through which it has none though a
            reference has one; nothing was judged there.
        setting: the point, the subject and the oracles.
        notes: observations that are no reason to refuse.
        cause: the exception that the subject raised, if any.
        reduced: by the refused array of a large point, the result at a smaller point that shows the same.
        shown: what the outputs are called, by the name that the judge has for them; none where it is the same.
        seconds: how long the judgement took; infinite if unknown.
    """

    subject: str
    property_name: str
    findings: tuple[Finding, ...]
    not_claimed: tuple[str, ...] = ()
    setting: Setting | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()
    cause: BaseException | None = field(default=None, repr=False, compare=False)
    reduced: Mapping[str, Result] = field(default_factory=dict, repr=False, compare=False)
    shown: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    seconds: float = field(default=inf, repr=False, compare=False)

    def __str__(self) -> str:
        """Summarize: which oracle accepted which arrays, what would have been refused, and what was not judged."""
        by_oracle: dict[str, list[str]] = {}
        for f in self.findings:
            if not f.refuses and f.quantity not in by_oracle.setdefault(f.oracle, []):
                by_oracle[f.oracle].append(f.quantity)
        accepted = "; ".join(f"{', '.join(quantities)} by {oracle}" for oracle, quantities in by_oracle.items())
        lines = [f"{self.subject}: {self.verdict}  [{self.property_name}]", f"  judged: {accepted or 'nothing'}"]
        judged, entries = (sum(counts) for counts in zip(*self.judged.values(), strict=True)) if self.judged else (0, 0)
        if entries:
            unknown = f"; not {', '.join(self.unknown)}" if self.unknown else ""
            lines.append(f"  entries judged: {judged} of {entries}{unknown}")
        if self.mostly_open:
            lines.append(f"  {self.open_text}")
        if self.detects_above:
            lines.append(f"  error / tolerance {self.ratio:.2g}; an error of {self.detects_above:.0e} would be refused")
        lines += [f"  {quantity}: {reason}" for quantity, reason in self.inconclusive_because.items()]
        unstable = [f for f in self.findings if f.verdict is Verdict.UNSTABLE]
        lines += dict.fromkeys(f"  {f.quantity}: {f.evidence.reason}" for f in unstable)  # without repetitions
        if self.not_claimed:
            lines.append(f"  no gradient claimed, nothing judged: {', '.join(self.not_claimed)}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the arrays by oracle with pictures, or the text without Jinja2."""
        return str(html.result_fragment(self))

    @property
    def judged(self) -> dict[str, tuple[int, int]]:
        """(number of judged entries, number of entries) of every array, by the oracle that judged the most."""
        shares: dict[str, tuple[int, int]] = {}
        for f in self.findings:
            if f.oracle != SELF_CONSISTENCY:
                shares[f.quantity] = max(shares.get(f.quantity, (0, 0)), f.judged)
        return shares

    @property
    def unknown(self) -> list[str]:
        """The entries that no oracle judged, a text for every array: "z[0], z[3] and 7 more"."""
        texts = []
        for quantity, (k, n) in self.judged.items():
            if k < n:
                best = max((f for f in self.findings if f.quantity == quantity), key=lambda f: f.judged)
                names = [f"{quantity}{list(index) if index else ''}" for index in best.unknown]
                rest = n - k - len(names)
                texts.append(", ".join(names) + (f" and {rest} more" if rest > 0 else ""))
        return texts

    @property
    def inconclusive(self) -> tuple[str, ...]:
        """The cotangents of which no oracle judged an entry, under any delta."""
        conclusive = {f.quantity for f in self.findings if f.verdict is not Verdict.VACUOUS}
        cotangents = {f.quantity for f in self.findings if f.is_cotangent}
        return tuple(n for n, (k, total) in self.judged.items() if total and n in cotangents - conclusive)

    @property
    def inconclusive_because(self) -> dict[str, str]:
        """Why nothing of a cotangent was judged, as far as an oracle says why."""
        vacuous = [f for f in self.findings if f.quantity in self.inconclusive and f.evidence.reason]
        return {f.quantity: f.evidence.reason for f in vacuous}

    @property
    def mostly_open(self) -> dict[str, tuple[int, int]]:
        """(number of open entries, number of entries) of the arrays of which most entries are open for each oracle."""
        shares: dict[str, tuple[int, int]] = {}
        for f in self.findings:
            if f.oracle != SELF_CONSISTENCY:
                open_here = f.open if f.verdict in (Verdict.AGREES, Verdict.VACUOUS) else 0
                shares[f.quantity] = min(shares.get(f.quantity, (open_here, f.judged[1])), (open_here, f.judged[1]))
        return {n: (k, total) for n, (k, total) in shares.items() if 2 * k > total}

    @property
    def open_text(self) -> str:
        """Say of which arrays most entries are open; "" if of none."""
        counts = [f"{k} of {total} entries of {n}" for n, (k, total) in self.mostly_open.items()]
        reason = "rounding can move them by their own size, or no oracle knows them"
        return f"{' and '.join(counts)} were not judged: {reason}" if counts else ""

    @property
    def worst(self) -> Finding | None:
        """The most severe finding; ``None`` if nothing was judged."""
        return max(self.findings, key=lambda finding: finding.gravity, default=None)

    @property
    def gravity(self) -> Gravity:
        """The sort key of results: that of the most severe finding."""
        return self.worst.gravity if self.worst else (False, 0, False, 0.0)

    @property
    def verdict(self) -> Verdict:
        """The most severe verdict; vacuous if nothing of some cotangent was judged, or of every one that is claimed."""
        conclusive = [f for f in self.findings if f.verdict is not Verdict.VACUOUS]
        if not conclusive or (self.inconclusive and not self.refuses):
            return Verdict.VACUOUS
        if self.not_claimed and not self.refuses and not any(f.is_cotangent for f in self.findings):
            return Verdict.VACUOUS
        return max(conclusive, key=lambda finding: finding.gravity).verdict

    @property
    def refuses(self) -> bool:
        """Whether any finding refuses the subject."""
        return any(f.refuses for f in self.findings)

    @property
    def ratio(self) -> float:
        """The largest |error| / tolerance over all findings."""
        return max((f.ratio for f in self.findings), default=0.0)

    @property
    def detects_above(self) -> float:
        """The smallest relative error in one entry that would have been refused: the median over the findings.

        0 if there is none, or if most findings are vacuous.
        """
        vacuous = [inf for f in self.findings if f.verdict is Verdict.VACUOUS]
        levels = sorted([f.detects_above for f in self.findings if f.detects_above] + vacuous)
        median = levels[len(levels) // 2] if levels else 0.0
        return median if median < inf else 0.0
