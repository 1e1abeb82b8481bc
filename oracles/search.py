"""Search for a point at which a property fails: Hypothesis draws cases and points, one pytest id for each property."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import sqrt
from typing import Any, TypeAlias

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from oracles.constants import POINTS_PER_CASE, VACUOUS_DEVIATIONS, VACUOUS_LIMIT
from oracles.decision.type_errors import CALL
from oracles.evaluations import Memory, on_copies, remembered
from oracles.finite_differences import finite_difference
from oracles.options import DTYPE_NAMES, NO_OPTIONS, SearchOptions
from oracles.properties import PROPERTIES, properties_of, same_every_time
from oracles.registry import FRAMEWORKS, Case, Entry
from oracles.report.disagreement import Disagreement, require
from oracles.rule import Rule
from oracles.self_consistency import contradiction_findings, exact_finding
from oracles.strategies import Point, points
from oracles.tolerance import precision_of
from oracles.verdict import Finding, Result, Setting, Verdict

# A test function, undecorated or decorated: pytest's own mark decorator accepts and returns any callable.
Test: TypeAlias = Callable[..., Any]


def exceeds_vacuous_limit(vacuous: float, points: int) -> bool:
    """Return whether more points are inconclusive than the limit p and chance explain: k > p n + 2 √(p (1 − p) n)."""
    expected = VACUOUS_LIMIT * points
    return vacuous > expected + VACUOUS_DEVIATIONS * sqrt(expected * (1 - VACUOUS_LIMIT))


@dataclass
class Tally:
    """The results of one search by oracle, updated at every point, so that an interrupted search keeps them.

    Attributes:
        examples: the number of points that the oracle judged.
        worst_ratio: the largest error / tolerance.
        verdicts: the verdict on the last refused point, else "agrees".
        vacuous: the number of inconclusive points.
        detects_above: the smallest relative errors that would have been refused, at conclusive points.
        points: the number of points, whichever oracles judged.
        seconds: the wall-clock time.
    """

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


def run_search(
    cases: st.SearchStrategy[Case],
    property_name: str,
    dtype: str,
    *,
    against: Sequence[str] = tuple(FRAMEWORKS),
    label: str = "",
    max_examples: int | None = None,
    seed: int | None = None,
    tally: Tally | None = None,
    tick: Callable[[], object] | None = None,
    sparse: bool = False,
) -> Tally:
    """Search a strategy of cases for a point at which a property fails, and return what was counted.

    Args:
        cases: draws the cases.
        property_name: the name of a property in `oracles.properties.PROPERTIES`.
        dtype: of the floating primals: "float64", "float32".
        against: the frameworks that judge; if a case has no reference in any of them, finite differences do.
        label: names the search in Hypothesis's database, so that a failing example is replayed first.
        max_examples: how many points; by default the loaded Hypothesis profile's number.
        seed: fixes the search; by default the profile decides.
        tally: where to count, so that the caller keeps the results of an interrupted search.
        tick: called before every point; what it raises ends the search.
        sparse: the strategy rejects most of what it draws, on purpose.

    Raises:
        Disagreement: at the smallest failing point, with the values that reproduce it.
        Exception: whatever the subject raises.
    """
    __tracebackhide__ = True  # pytest shows the report and the caller's own line
    counted = tally if tally is not None else Tally()
    last_failure: list[Exception] = []
    conforms = _test_of(property_name, against, counted, tick, last_failure)
    # Hypothesis keys its database by the test's name.
    conforms.__name__ = conforms.__qualname__ = re.sub(r"\W", "_", f"conforms_{label}_{property_name}_{dtype}")
    test = _settings(max_examples, seed, sparse)(given(draw_case_and_points(cases, dtype))(conforms))
    started = time.perf_counter()
    try:
        (test if seed is None else hypothesis_seed(seed)(test))()
    except (_NotDeterministic, Flaky) as changed:
        # What a subject does once, and not again for the same arguments, Hypothesis calls flaky.
        refused = changed.result if isinstance(changed, _NotDeterministic) else _unrepeated(last_failure, changed)
        counted.add(refused)
        raise Disagreement(refused) from refused.cause
    except Disagreement as refusal:
        # The report names the point. Of what Hypothesis adds, only the way to replay it says more; its frames do not.
        refusal.__notes__ = [note for note in getattr(refusal, "__notes__", ()) if "reproduce_failure" in note]
        raise refusal.with_traceback(None) from None
    finally:
        counted.seconds += time.perf_counter() - started
    return counted


def _test_of(
    property_name: str,
    against: Sequence[str],
    counted: Tally,
    tick: Callable[[], object] | None,
    last_failure: list[Exception],
) -> Callable[[tuple[Case, tuple[Point, ...]]], None]:
    """Return the test of a drawn case, which leaves what it raises in ``last_failure``."""
    judge = PROPERTIES[property_name]

    def conforms(drawn: tuple[Case, tuple[Point, ...]]) -> None:
        case, case_points = drawn
        for point in case_points:
            if tick:
                tick()
            memory = Memory()
            watched = replace(case, subject=remembered(case.subject, memory))
            oracles = case.oracles(against) or [finite_difference(watched.subject)]
            setting = _setting(case, point, oracles)
            try:
                _judge_point(partial(judge, watched, point, oracles), setting, counted)
            except Exception as failure:  # a refusal, or whatever the subject raises
                _require_repetition(failure, memory, setting, property_name)
                last_failure[:] = [failure]
                raise
            _require_determinism(memory, setting, property_name)

    return conforms


def _judge_point(judge: Callable[[], Result | None], setting: Setting, counted: Tally) -> None:
    """Judge one point, count it, and raise if it is refused."""
    result = judge()
    if result is not None:
        counted.add(result)
        require(replace(result, setting=setting) if result.refuses and not result.setting else result)


class _NotDeterministic(BaseException):
    """Ends a search: the subject gave two answers to the same call. Hypothesis would try to repeat an `Exception`."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result


def _require_repetition(failure: Exception, memory: Memory, setting: Setting, property_name: str) -> None:
    """Call the subject again where it failed, and end the search if it gives another answer.

    The property that repeats calls says more of an answer that changes, so it may go on.
    """
    if property_name == same_every_time.__name__ and isinstance(failure, Disagreement):
        return
    memory.repeat(remembered(setting.subject, memory))
    _require_determinism(memory, setting, property_name, None if isinstance(failure, Disagreement) else failure)


def _require_determinism(
    memory: Memory, setting: Setting, property_name: str, cause: BaseException | None = None
) -> None:
    """End the search if the subject gave two answers to the same call."""
    findings = contradiction_findings(memory, setting.subject, setting.oracles, setting.precision)
    if findings:
        raise _NotDeterministic(
            Result(setting.subject.name, property_name, tuple(findings), setting=setting, cause=cause)
        )


def _unrepeated(failures: Sequence[Exception], flaky: Flaky) -> Result:
    """Return the refusal of a subject whose failure did not repeat, from what failed last."""
    failure: BaseException = failures[-1] if failures else flaky
    if isinstance(failure, BaseExceptionGroup):  # what Hypothesis caught
        failure = failure.exceptions[0]
    reason = "not deterministic: this failed once, and not again for the same point"
    if isinstance(failure, Disagreement):
        worst, result = failure.result.worst, failure.result
        assert worst is not None
        evidence = replace(worst.evidence, reason=f"{reason}; {worst.evidence.reason}".rstrip("; "))
        finding = replace(worst, verdict=Verdict.WRONG, oracle="self-consistency", evidence=evidence)
        return replace(result, findings=(finding,))
    return Result(
        "the subject",
        "repetition",
        (exact_finding(CALL, False, f"{reason}: {type(failure).__name__}: {failure}"),),
        cause=failure,
    )


def _settings(max_examples: int | None, seed: int | None, sparse: bool) -> settings:
    """Return the loaded Hypothesis profile, changed to fit a search."""
    profile = settings()
    return settings(
        # A first call compiles or loads a framework, which would exceed any deadline.
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, *([HealthCheck.filter_too_much] if sparse else [])],
        # The explain phase would search for lines of the judge that a failure has in common: no news, and slow.
        phases=[phase for phase in profile.phases if phase is not Phase.explain],
        # One report: several bugs of one property mostly have one cause.
        report_multiple_bugs=False,
        max_examples=-(-(max_examples or profile.max_examples) // POINTS_PER_CASE),
        # A stored example would make two runs of one seed differ.
        database=profile.database if seed is None else None,
    )


def _setting(case: Case, point: Point, oracles: Sequence[Rule]) -> Setting:
    return Setting(on_copies(case.subject), tuple(oracles), point.primals, point.delta, precision_of(point.primals))


@st.composite
def draw_case_and_points(draw: st.DrawFn, cases: st.SearchStrategy[Case], dtype: str) -> tuple[Case, tuple[Point, ...]]:
    """Draw a case, then points of it.

    Raises:
        TypeError: if the strategy draws anything but a `Case`.
    """
    case = draw(cases)
    if not isinstance(case, Case):
        raise TypeError(
            f"conformance: the strategy drew {case!r:.60} ({type(case).__name__}), expected an oracles.Case.\n"
            "Fix:    return oracles.Case(subject, primals, torch=..., jax=...)"
        )
    return case, draw(points(case.subject, case.primals, dtype, POINTS_PER_CASE))


@dataclass(frozen=True, repr=False)
class Search:
    """One property on a strategy of cases in one dtype, ready to be called: the ``search`` of a decorated test.

    Attributes:
        cases, property_name, dtype, against, max_examples, sparse: as in `run_search`.
        label: what reports and summaries call the subject.
        note: which cases are left out, and why, for the summary.
        options: the options of the command line; the plugin fills them in.
        tally: the results.
    """

    cases: st.SearchStrategy[Case]
    property_name: str
    dtype: str
    label: str
    against: Sequence[str] = tuple(FRAMEWORKS)
    max_examples: int | None = None
    sparse: bool = False
    note: str = ""
    options: SearchOptions = NO_OPTIONS
    tally: Tally = field(default_factory=Tally, compare=False)

    def __repr__(self) -> str:
        return f"<{self.property_name} in {self.dtype} on {self.label}>"

    def __call__(self, tick: Callable[[], object] | None = None) -> Tally:
        """Search, and return the tally.

        Args:
            tick: called before every point; what it raises ends the search.

        Raises:
            Disagreement: at the smallest failing point.
            Exception: whatever the subject raises.
        """
        __tracebackhide__ = True
        error = self.attempt(tick)
        if error is not None:
            raise error
        return self.tally

    def attempt(self, tick: Callable[[], object] | None = None) -> Exception | None:
        """Search, and return the exception that ended the search, `Disagreement` or another, if any did."""
        __tracebackhide__ = True
        try:
            run_search(
                self.cases,
                self.property_name,
                self.dtype,
                against=self.options.against or self.against,
                label=self.label,
                max_examples=self.options.points(self.max_examples),
                seed=self.options.seed,
                tally=self.tally,
                tick=tick,
                sparse=self.sparse,
            )
        except Disagreement as refusal:
            return refusal
        except Exception as error:  # a subject may raise anything: it fails its search, and the others go on
            self.tally.verdicts["self-consistency"] = Verdict.WRONG
            return error
        return None


def searches_of(
    entry: Entry, dtypes: Sequence[str] = DTYPE_NAMES, options: SearchOptions = NO_OPTIONS
) -> dict[str, Search]:
    """Return every search that applies to a registered layer, by "property-dtype"."""
    return {
        f"{name}-{dtype}": Search(entry.cases, name, dtype, entry.name, options=options)
        for name in properties_of(entry)
        for dtype in dtypes
    }


def conformance(
    cases: st.SearchStrategy[Case],
    *,
    dtypes: Sequence[str] = DTYPE_NAMES,
    against: Sequence[str] = tuple(FRAMEWORKS),
    max_examples: int | None = None,
) -> Callable[[Test], Test]:
    """Decorate a test so that every property is searched on a strategy of cases, one pytest id for each and dtype.

        @oracles.conformance(my_cases())
        def test_my_layer(search):
            search()

    pytest's ``--oracles-against``, ``--oracles-max-examples`` and ``--oracles-seed`` override these arguments, and
    these override ``--oracles-profile``.

    Args:
        cases: draws the cases.
        dtypes: the dtypes of the floating primals.
        against: the frameworks that judge.
        max_examples: how many points for each property and dtype.

    Raises:
        TypeError, ValueError: at once, if an argument cannot be used; states what was expected and what to write.
    """
    _require_strategy(cases)
    return parametrize("conformance", Search(cases, "", "", "", against, max_examples), PROPERTIES, dtypes)


def parametrize(
    decorator: str, template: Search, properties: Iterable[str], dtypes: Sequence[str]
) -> Callable[[Test], Test]:
    """Return a decorator that passes a test ``(search)`` a search for every property and dtype.

    Args:
        decorator: the name of the public decorator, for error messages.
        template: the search, without its property and dtype.
        properties, dtypes: what to combine.

    Raises:
        TypeError, ValueError: at once, for an unknown framework or dtype, or an impossible number of examples.
    """
    import pytest  # only tests need it

    _require_some(decorator, "dtypes", dtypes, DTYPE_NAMES)
    _require_some(decorator, "against", template.against, tuple(FRAMEWORKS))
    number = template.max_examples
    if number is not None and not (isinstance(number, int) and number >= 1):
        raise ValueError(f"{decorator}: max_examples: expected a whole number of at least 1, got {number!r}")

    def decorate(test: Test) -> Test:
        if "search" not in inspect.signature(test).parameters:
            raise TypeError(
                f"{decorator}: {test.__qualname__} takes no argument named search.\n"
                f"Fix:    def {test.__name__}(search):\n            search()"
            )
        label = template.label or test.__qualname__
        searches = {
            f"{name}-{dtype}": replace(template, property_name=name, dtype=dtype, label=label, tally=Tally())
            for name in properties
            for dtype in dtypes
        }
        return pytest.mark.parametrize("search", list(searches.values()), ids=list(searches))(test)

    return decorate


def _require_strategy(cases: object) -> None:
    if not isinstance(cases, st.SearchStrategy):
        name = getattr(cases, "__name__", "cases")
        raise TypeError(
            f"conformance: expected a Hypothesis strategy of oracles.Case, got {cases!r:.80}.\n"
            f"Fix:    @st.composite\n        def {name}(draw):\n            return oracles.Case(...)\n\n"
            f"        @oracles.conformance({name}())"
        )


def _require_some(decorator: str, argument: str, names: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(names, str) or not names or set(names) - set(known):
        raise ValueError(
            f"{decorator}: {argument}: expected some of {', '.join(known)}, got {names!r}.\n"
            f"Fix:    {argument}=({known[0]!r},)"
        )
