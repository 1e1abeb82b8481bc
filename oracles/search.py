"""The kit: run every check on a strategy of cases, searched by Hypothesis, as one pytest id for each check."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from oracles.finite_differences import finite_difference
from oracles.options import DTYPE_NAMES, NOTHING_ASKED, Options
from oracles.properties import FORWARD_PROPERTIES, PROPERTIES
from oracles.registry import FRAMEWORKS, Case, Entry
from oracles.report.disagreement import Disagreement, require
from oracles.rule import Rule
from oracles.self_consistency import on_copies
from oracles.strategies import Point, points
from oracles.tolerance import precision_of
from oracles.verdict import Finding, Result, Setting, Verdict

POINTS_PER_CASE = 4
DTYPES = DTYPE_NAMES


@dataclass
class Tally:
    """What one search has seen, oracle by oracle; kept current while it runs, so that an interrupted one keeps it."""

    examples: dict[str, int] = field(default_factory=dict)
    worst_ratio: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    vacuous: dict[str, int] = field(default_factory=dict)
    detects_above: dict[str, list[float]] = field(default_factory=dict)
    points: int = 0
    seconds: float = 0.0

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
            self.detects_above.setdefault(oracle, []).extend(
                f.detects_above for f in findings if f.detects_above and f.verdict is not Verdict.VACUOUS
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
    sparse: bool = False,
) -> Tally:
    """Search a strategy of cases for a point at which a check fails.

    Args:
        cases: draws the cases.
        check: the name of a check in `oracles.properties.PROPERTIES`.
        dtype: of the floating primals: "float64", "float32".
        against: the frameworks that judge; where a case has no reference in any of them, finite differences do.
        label: names the search in Hypothesis's database, so that a failing example is found again first.
        max_examples: how many points; by default the loaded Hypothesis profile's number.
        seed: fixes the search; by default the profile decides.
        tally: where to count, so that the caller keeps what an interrupted search has seen.
        tick: called before every point; what it raises ends the search.
        sparse: the strategy rejects most of what it draws, and that is meant.

    Raises:
        Disagreement: at the smallest failing point, with the values that reproduce it.
    """
    __tracebackhide__ = True  # pytest shows the report and the caller's own line
    run, counted = PROPERTIES[check], tally if tally is not None else Tally()

    def conforms(drawn: tuple[Case, tuple[Point, ...]]) -> None:
        case, at = drawn
        oracles = case.oracles(against) or [finite_difference(case.subject)]
        for point in at:
            if tick:
                tick()
            result = run(case, point, oracles)
            if result is not None:
                counted.add(result)
                refused = result.refuses and not result.setting
                require(replace(result, setting=_setting(case, point, oracles)) if refused else result)

    conforms.__name__ = conforms.__qualname__ = re.sub(r"\W", "_", f"conforms_{label}_{check}_{dtype}")
    profile = settings()
    test = settings(
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, *([HealthCheck.filter_too_much] if sparse else [])],
        phases=[phase for phase in profile.phases if phase is not Phase.explain],
        report_multiple_bugs=False,
        max_examples=-(-(max_examples or profile.max_examples) // POINTS_PER_CASE),
        database=profile.database if seed is None else None,
    )(given(judged_points(cases, dtype))(conforms))
    started = time.perf_counter()
    try:
        (test if seed is None else hypothesis_seed(seed)(test))()
    except Disagreement as found:
        # The report names the point: of what Hypothesis adds only the way to replay it is news, of its frames nothing.
        found.__notes__ = [note for note in getattr(found, "__notes__", ()) if "reproduce_failure" in note]
        raise found.with_traceback(None) from None
    finally:
        counted.seconds += time.perf_counter() - started
    return counted


def _setting(case: Case, point: Point, oracles: Sequence[Rule]) -> Setting:
    return Setting(on_copies(case.subject), tuple(oracles), point.primals, point.delta, precision_of(point.primals))


@st.composite
def judged_points(draw: st.DrawFn, cases: st.SearchStrategy[Case], dtype: str) -> tuple[Case, tuple[Point, ...]]:
    """Draw a case, then points of it."""
    case = draw(cases)
    if not isinstance(case, Case):
        raise TypeError(
            f"conformance: the strategy drew {case!r:.60} ({type(case).__name__}), expected an oracles.Case.\n"
            "Fix:    return oracles.Case(subject, primals, torch=..., jax=...)"
        )
    return case, draw(points(case.subject, case.primals, dtype, POINTS_PER_CASE))


def searches(names: Sequence[Entry], dtypes: Sequence[str] = DTYPES) -> Iterator[tuple[Entry, str, str]]:
    """Yield every (entry, check, dtype) that applies."""
    for entry in names:
        for check in PROPERTIES if entry.pullback else FORWARD_PROPERTIES:
            for dtype in dtypes:
                yield entry, check, dtype


@dataclass(frozen=True, repr=False)
class Run:
    """One check on a strategy in one dtype, ready to be called: the ``check`` of a decorated test.

    Attributes:
        cases, check, dtype, against, max_examples, sparse: as in `search`.
        label: what reports and summaries call the subject.
        note: what is left out, and why, for the summary.
        options: what the command line asks for; the plugin fills them in.
        tally: what has been seen.
    """

    cases: st.SearchStrategy[Case]
    check: str
    dtype: str
    label: str
    against: Sequence[str] = tuple(FRAMEWORKS)
    max_examples: int | None = None
    sparse: bool = False
    note: str = ""
    options: Options = NOTHING_ASKED
    tally: Tally = field(default_factory=Tally, compare=False)

    def __repr__(self) -> str:
        return f"<{self.check} in {self.dtype} on {self.label}>"

    def __call__(self) -> Tally:
        """Search, and return what was seen; raise a Disagreement at the smallest failing point."""
        __tracebackhide__ = True
        try:
            return search(
                self.cases,
                self.check,
                self.dtype,
                against=self.options.against or self.against,
                label=self.label,
                max_examples=self.options.points(self.max_examples),
                seed=self.options.seed,
                tally=self.tally,
                sparse=self.sparse,
            )
        except Exception as error:
            if not isinstance(error, Disagreement):
                self.tally.verdicts["self-consistency"] = Verdict.WRONG
            raise


def runs_of(entry: Entry, dtypes: Sequence[str] = DTYPES) -> dict[str, Run]:
    """Return every run that applies to a registered family, by "check-dtype"."""
    return {
        f"{check}-{dtype}": Run(entry.cases, check, dtype, entry.name) for _, check, dtype in searches([entry], dtypes)
    }


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

    pytest's ``--oracles-against``, ``--oracles-max-examples`` and ``--oracles-seed`` win over the arguments here, and
    these over ``--oracles-profile``.

    Raises:
        TypeError, ValueError: at once, if an argument cannot be used; says what came and what to write.
    """
    _require_strategy(cases)
    return decorator("conformance", Run(cases, "", "", "", against, max_examples), PROPERTIES, dtypes)


def decorator(
    face: str, shared: Run, checks: Iterable[str], dtypes: Sequence[str]
) -> Callable[[Callable[..., Any]], Any]:
    """Return what decorates a test ``(check)`` with a run for every check and dtype, given what these share.

    Raises:
        TypeError, ValueError: at once, for a framework, a dtype or a number of examples that cannot be.
    """
    import pytest

    _require_some(face, "dtypes", dtypes, DTYPES)
    _require_some(face, "against", shared.against, tuple(FRAMEWORKS))
    if shared.max_examples is not None and not (isinstance(shared.max_examples, int) and shared.max_examples >= 1):
        raise ValueError(f"{face}: max_examples: expected a whole number of at least 1, got {shared.max_examples!r}")

    def decorate(test: Callable[..., Any]) -> Any:
        if "check" not in inspect.signature(test).parameters:
            raise TypeError(
                f"{face}: {test.__qualname__} takes no argument named check.\n"
                f"Fix:    def {test.__name__}(check):\n            check()"
            )
        label = shared.label or test.__qualname__
        each = {
            f"{check}-{dtype}": replace(shared, check=check, dtype=dtype, label=label, tally=Tally())
            for check in checks
            for dtype in dtypes
        }
        return pytest.mark.parametrize("check", list(each.values()), ids=list(each))(test)

    return decorate


def _require_strategy(cases: object) -> None:
    if isinstance(cases, st.SearchStrategy):
        return
    name = getattr(cases, "__name__", "cases")
    raise TypeError(
        f"conformance: expected a Hypothesis strategy of oracles.Case, got {cases!r:.80}.\n"
        f"Fix:    @st.composite\n        def {name}(draw):\n            return oracles.Case(...)\n\n"
        f"        @oracles.conformance({name}())"
    )


def _require_some(face: str, argument: str, came: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(came, str) or not came or set(came) - set(known):
        raise ValueError(
            f"{face}: {argument}: expected some of {', '.join(known)}, got {came!r}.\n"
            f"Fix:    {argument}=({known[0]!r},)"
        )
