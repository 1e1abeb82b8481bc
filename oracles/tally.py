"""What a search counts: the results of its points by oracle, and how many were inconclusive or ran out of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from oracles.constants import POINTS_PER_CASE, VACUOUS_LIMIT
from oracles.coverage import Coverage
from oracles.missing import Missing
from oracles.verdict import Finding, Result, Verdict

# (error / tolerance, relative tolerance, whether it is refused) of one point
PointRatio: TypeAlias = tuple[float, float, bool]


def most_inconclusive(points: int) -> int:
    """Return how many of so many points may be inconclusive: a tenth, and one drawn case more, but never all."""
    return max(min(int(VACUOUS_LIMIT * points) + POINTS_PER_CASE, points - 1), 0)


def exceeds_vacuous_limit(vacuous: float, points: int) -> bool:
    """Return whether more points are inconclusive than `most_inconclusive`."""
    return vacuous > most_inconclusive(points)


def inconclusive_oracles(points: Mapping[str, int], vacuous: Mapping[str, float]) -> list[str]:
    """Return the oracles of one search with too many inconclusive points, given the numbers of both by oracle.

    An oracle that judged no more points than one drawn case has may be inconclusive at all of them, where another one
    judged the search: it stands in where that one has no value, and such points are few and alike.
    """
    many = [oracle for oracle in points if exceeds_vacuous_limit(vacuous[oracle], points[oracle])]
    is_judged = any(oracle not in many and points[oracle] > POINTS_PER_CASE for oracle in points)
    return [oracle for oracle in many if not (is_judged and points[oracle] <= POINTS_PER_CASE)]


def describe_inconclusive(vacuous: float, points: int) -> str:
    """Return what reports say of too many inconclusive points: how many there are, and how many may be."""
    return f"{vacuous:g} of {points} points; at most {most_inconclusive(points)} may be"


def points_out_of_time(count: int) -> str:
    """Return what reports say of so many points whose time was over before all was judged."""
    points = "1 point" if count == 1 else f"{count} points"
    return f"{points} out of time: what was not judged there is inconclusive; give each point more seconds"


@dataclass
class Tally:
    """The results of one search by oracle, updated at every point, so that an interrupted search keeps them.

    Attributes:
        examples: the number of points that the oracle judged.
        worst_ratio: the largest error / tolerance.
        verdicts: the verdict on the last refused point, else "agrees".
        vacuous: the number of inconclusive points.
        detects_above: the smallest relative errors that would have been refused, at conclusive points.
        ratios: (error / tolerance, relative tolerance, whether it is refused) of every conclusive point, in the array
            with the largest ratio; a relative tolerance of 0 where there is none, as where bits are compared.
        points: the number of points, whichever oracles judged.
        seconds: the wall-clock time.
        out_of_time: the number of points whose time was over before all was judged.
        coverage: what was drawn, if oracles judged.
        skipped: the frameworks that could not judge, since they are not installed.
    """

    examples: dict[str, int] = field(default_factory=dict)
    worst_ratio: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    vacuous: dict[str, int] = field(default_factory=dict)
    detects_above: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, list[PointRatio]] = field(default_factory=dict)
    points: int = 0
    seconds: float = 0.0
    out_of_time: int = 0
    coverage: Coverage = field(default_factory=Coverage)
    skipped: dict[str, Missing] = field(default_factory=dict)

    @property
    def inconclusive(self) -> list[str]:
        """The oracles with too many inconclusive points, see `inconclusive_oracles`."""
        return inconclusive_oracles(self.examples, {oracle: self.vacuous.get(oracle, 0) for oracle in self.examples})

    def add(self, result: Result) -> None:
        """Count one judged point."""
        self.points += 1
        by_oracle: dict[str, list[Finding]] = {}
        for finding in result.findings:
            by_oracle.setdefault(finding.oracle, []).append(finding)
        for oracle, findings in by_oracle.items():
            worst = max(f.ratio for f in findings)
            self.examples[oracle] = self.examples.get(oracle, 0) + 1
            self.worst_ratio[oracle] = max(self.worst_ratio.get(oracle, 0.0), worst)
            refused = [f.verdict for f in findings if f.refuses]
            self.verdicts[oracle] = refused[0] if refused else self.verdicts.get(oracle, Verdict.AGREES)
            if all(f.verdict is Verdict.VACUOUS for f in findings):
                self.vacuous[oracle] = self.vacuous.get(oracle, 0) + 1
            else:
                farthest = max(findings, key=lambda f: (f.refuses, f.ratio))
                self.ratios.setdefault(oracle, []).append(
                    (farthest.ratio, farthest.relative_tolerance, farthest.refuses)
                )
            self.detects_above.setdefault(oracle, []).extend(
                f.detects_above for f in findings if f.detects_above and f.verdict is not Verdict.VACUOUS
            )
