"""The kit: run every check on a strategy of cases, searched by Hypothesis, as one pytest id for each check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from oracles.checks import CHECKS, PRIMAL_ONLY
from oracles.disagreement import require
from oracles.registry import FRAMEWORKS, Case, Entry
from oracles.strategies import Point, points
from oracles.verdict import Finding, Result, Verdict

POINTS_PER_CASE = 4
DTYPES = ("float64", "float32")


@dataclass
class Tally:
    """What one search has seen, oracle by oracle; kept current while it runs, so that an interrupted one keeps it."""

    examples: dict[str, int] = field(default_factory=dict)
    worst_ratio: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    vacuous: dict[str, int] = field(default_factory=dict)
    resolves: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        """Count one judged point."""
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
            self.resolves.setdefault(oracle, []).extend(
                f.resolves for f in findings if f.resolves and f.verdict is not Verdict.VACUOUS
            )


def search(
    cases: st.SearchStrategy[Case],
    check: str,
    dtype: str,
    *,
    against: Sequence[str] = tuple(FRAMEWORKS),
    label: str = "",
    max_examples: int | None = None,
    seed: int | None = None,
    tally: Tally | None = None,
    tick: Callable[[], Any] | None = None,
) -> Tally:
    """Search a strategy of cases for a point at which a check fails.

    Args:
        cases: draws the cases.
        check: the name of a check in `oracles.checks.CHECKS`.
        dtype: of the floating primals: "float64", "float32".
        against: the frameworks that judge.
        label: names the search in Hypothesis's database, so that a failing example is found again first.
        max_examples: how many points; by default the loaded Hypothesis profile's number.
        seed: fixes the search; by default the profile decides.
        tally: where to count, so that the caller keeps what an interrupted search has seen.
        tick: called after every point.

    Raises:
        Disagreement: at the smallest failing point, with the values that reproduce it.
    """
    run, counted = CHECKS[check], tally if tally is not None else Tally()

    def conforms(drawn: tuple[Case, tuple[Point, ...]]) -> None:
        case, at = drawn
        oracles = case.oracles(against)
        for point in at:
            result = run(case, point, oracles)
            if tick:
                tick()
            if result is not None:
                counted.add(result)
                require(result)

    conforms.__name__ = conforms.__qualname__ = f"conforms_{label}_{check}_{dtype}"
    profile = settings()
    test = settings(
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=[phase for phase in profile.phases if phase is not Phase.explain],
        max_examples=-(-(max_examples or profile.max_examples) // POINTS_PER_CASE),
        database=profile.database if seed is None else None,
    )(given(judged_points(cases, dtype))(conforms))
    started = time.perf_counter()
    try:
        (test if seed is None else hypothesis_seed(seed)(test))()
    finally:
        counted.seconds += time.perf_counter() - started
    return counted


@st.composite
def judged_points(draw: st.DrawFn, cases: st.SearchStrategy[Case], dtype: str) -> tuple[Case, tuple[Point, ...]]:
    """Draw a case, then points of it."""
    case = draw(cases)
    return case, draw(points(case.subject, case.primals, dtype, POINTS_PER_CASE))


def searches(names: Sequence[Entry], dtypes: Sequence[str] = DTYPES) -> Iterator[tuple[Entry, str, str]]:
    """Yield every (entry, check, dtype) that applies."""
    for entry in names:
        for check in CHECKS if entry.pullback else PRIMAL_ONLY:
            for dtype in dtypes:
                yield entry, check, dtype


def conformance(
    cases: st.SearchStrategy[Case],
    *,
    dtypes: Sequence[str] = DTYPES,
    against: Sequence[str] = tuple(FRAMEWORKS),
    max_examples: int | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a test so that every check runs on a strategy of cases, one pytest id for each check and dtype.

    @oracles.conformance(my_cases())
    def test_my_layer(check):
        check()
    """
    import pytest

    def decorate(test: Callable[..., Any]) -> Any:
        runs: Mapping[str, Callable[[], Tally]] = {
            f"{check}-{dtype}": lambda check=check, dtype=dtype: search(  # type: ignore[misc]
                cases, check, dtype, against=against, label=test.__qualname__, max_examples=max_examples
            )
            for check in CHECKS
            for dtype in dtypes
        }
        return pytest.mark.parametrize("check", list(runs.values()), ids=list(runs))(test)

    return decorate
