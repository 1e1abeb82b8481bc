"""Search for a point at which a property fails: Hypothesis draws cases and points, one pytest id for each property."""

from __future__ import annotations

import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import inf, isfinite, log10, prod
from unittest import SkipTest

import numpy as np
from hypothesis import HealthCheck, Phase, given, reject, settings, target
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from hypothesis.errors import Flaky, FlakyStrategyDefinition, HypothesisException

from oracles.adaptable import adapting_line, described
from oracles.constants import (
    CHECK_SECONDS,
    DIFFERENCE_INPUTS,
    EXAMPLES_PER_RUN,
    LONG_SHARE,
    MOST_LONG_ENTRIES,
    OWN_LONG_SHARE,
    POINTS_PER_CASE,
    SHORTER_EXAMPLES,
)
from oracles.determinism import NotDeterministic, require_determinism, require_repetition, unrepeated
from oracles.dtypes_taken import require_taken
from oracles.environment import describe_error, first_line
from oracles.evaluations import Memory, on_copies, remembered
from oracles.extents import SHORT, LongAxes, Schedule, Slot, drawing, shorter
from oracles.finite_differences import finite_difference
from oracles.missing import Missing, MissingPackage, missing_module
from oracles.options import DTYPE_NAMES, HALF_NAMES, NO_OPTIONS, SearchOptions
from oracles.outputs import Outputs, masked, shown, without_gradient
from oracles.process_state import judging
from oracles.properties import EVERY_PROPERTY, ORACLE_PROPERTIES, REQUESTED, UNAVAILABLE, properties_of
from oracles.registry import FRAMEWORKS, Case, Entry
from oracles.report.disagreement import Disagreement, require
from oracles.rule import InternalError, InvalidInput, ReferenceFailed, Rule
from oracles.strategies import Point, point_at, regimes, seeds
from oracles.tally import Tally
from oracles.time_budget import OutOfTime, is_out_of_time, time_budget
from oracles.user_code import Raised, attempt
from oracles.verdict import SELF_CONSISTENCY, Evidence, Finding, Result, Setting, Verdict

# What an example asks the schedule with, see there; bytes, which Hypothesis draws uniformly.
TICKETS = st.binary(min_size=4, max_size=4)
# The number of the run that climbs, from which its seed is made: more than a search has other runs.
CLIMBING_RUN = 1 << 20


class CasesFailed(InvalidInput):
    """The code that draws the cases raised, or drew no case: nothing is known of any subject."""


@judging()
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
    seconds: float = CHECK_SECONDS,
    blocks: Sequence[int] = (),
    climb: int = 0,
    keep: bool = False,
) -> Tally:
    """Search a strategy of cases for a point at which a property fails, and return what was counted.

    Args:
        cases: draws the cases.
        property_name: the name of a property in `oracles.properties.EVERY_PROPERTY`.
        dtype: of the floating primals: "float64", "float32", "float16", "bfloat16".
        against: the frameworks that judge; if a case has no reference in any of them, finite differences do.
        label: names the search in Hypothesis's database, so that a failing example is replayed first.
        max_examples: how many points; by default the loaded Hypothesis profile's number.
        seed: fixes the search; by default the profile decides.
        tally: where to count, so that the caller keeps the results of an interrupted search.
        tick: called before every point; what it raises ends the search.
        sparse: the strategy rejects most of what it draws, on purpose.
        seconds: the time budget of each point. When it is over, what is not judged is inconclusive.
        blocks: sizes of tiles, besides those that the cases declare; see `Case`.
        climb: how many points more are drawn with Hypothesis's target, error / tolerance: towards the worst.
        keep: save failing examples in the profile's database, although a seed fixes the search.

    Raises:
        Disagreement: at the smallest failing point, with the values that reproduce it.
        MissingPackage: if none of the frameworks for which a case has a reference is installed.
        CasesFailed: if drawing a case raises, or draws anything but a `Case`.
        Exception: whatever the subject raises.
    """
    __tracebackhide__ = True  # pytest shows the report and the caller's own line
    counted = tally if tally is not None else Tally()
    number = max_examples or settings().max_examples
    schedule = Schedule(number, LONG_SHARE if property_name in ORACLE_PROPERTIES else OWN_LONG_SHARE, blocks)
    judge = _Judge(property_name, tuple(against), dtype, counted, tick, schedule, number, seconds)
    # Hypothesis keys its database by the test's name.
    name = re.sub(r"\W", "_", f"conforms_{label}_{property_name}_{dtype}")
    drawn = examples(cases, schedule, dtype)
    started = time.perf_counter()
    drive = partial(_drive, judge, keep=keep or seed is None, sparse=sparse)
    with _named_failures(judge):
        try:
            for i, count in enumerate(_portions(schedule)):
                drive(drawn, f"{name}_{i}" if i else name, count, _seed_of_run(seed, name, i))
            if climb:
                judge.climbs, judge.left = True, climb
                freely = examples(cases, schedule, dtype, schedule.any_axes())
                drive(freely, f"{name}_climb", climb, _seed_of_run(seed, name, CLIMBING_RUN))
        except Disagreement as refusal:
            smaller = _with_shorter_axes(judge, cases, drive, name, seed) or refusal
            # The report names the point. Of what Hypothesis adds, only the way to replay it says more.
            smaller.__notes__ = [note for note in getattr(smaller, "__notes__", ()) if "reproduce_failure" in note]
            raise smaller.with_traceback(None) from None  # nor do its frames say more
        finally:
            counted.seconds += time.perf_counter() - started
    return counted


@contextmanager
def _named_failures(judge: _Judge) -> Iterator[None]:
    """Turn what Hypothesis raises into what it means: a subject that is not deterministic, or cases without a case."""
    __tracebackhide__ = True
    try:
        yield
    except FlakyStrategyDefinition as error:
        raise CasesFailed(f"the cases are not drawn alike from the same data: {first_line(error)}") from error
    except (NotDeterministic, Flaky) as change:
        if judge.last_failure is None and isinstance(change, Flaky):
            raise CasesFailed(f"a case could not be drawn once, and again it could: {first_line(change)}") from change
        # What a subject does once, and not again for the same arguments, Hypothesis calls flaky.
        refused = change.result if isinstance(change, NotDeterministic) else unrepeated(judge.last_failure, change)
        judge.counted.add(refused)
        raise Disagreement(refused) from refused.cause
    except HypothesisException as error:  # it can draw no case, or too few of what it draws are none
        raise CasesFailed(f"no case could be drawn: {type(error).__name__}: {first_line(error)}") from error


def _seed_of_run(seed: int | None, name: str, i: int) -> tuple[int, int] | None:
    """Return the seed of the i-th run of a search; ``None`` leaves it to Hypothesis.

    Hypothesis derives that of a derandomized test from its code, which all runs share: they would draw the same.
    """
    if seed is not None:
        return seed, i
    return (zlib.crc32(name.encode()), i) if i and settings().derandomize else None


def _portions(schedule: Schedule) -> Iterator[int]:
    """Distribute the examples of a schedule, which may become more, over several runs of Hypothesis.

    From the tenth example on it would draw each one several times with little changes, and nothing new.
    """
    done = 0
    while done < schedule.examples:
        count = min(EXAMPLES_PER_RUN, schedule.examples - done)
        yield count
        done += count


@dataclass
class _Judge:
    """Judges the examples of one search.

    Attributes:
        property_name: the property.
        against: the frameworks that judge.
        dtype: of the floating primals.
        counted: where results are counted, until something fails.
        tick: called before every point.
        schedule: of the examples.
        left: how many points are left; what shrinks a failing example costs no points.
        seconds: the time budget of each point.
        failing: the long axes of the failing example.
        last_failure: what the last failing point raised.
        climbs: whether examples have one point each, whose error / tolerance Hypothesis makes larger.
        ratio: the largest error / tolerance of the present example.
    """

    property_name: str
    against: tuple[str, ...]
    dtype: str
    counted: Tally
    tick: Callable[[], object] | None
    schedule: Schedule
    left: int
    seconds: float
    failing: LongAxes = SHORT
    last_failure: Exception | None = None
    climbs: bool = False
    ratio: float = 0.0

    def __call__(self, example: Example) -> None:
        """Judge the points of an example.

        Raises:
            Disagreement: at the first refused point.
            Exception: whatever the subject raises.
        """
        __tracebackhide__ = True
        searching = self.schedule.searching
        if searching and not example.is_new:
            reject()  # Hypothesis varies what it has drawn before: that would take the place of another size
        completed, memory, self.ratio = False, Memory(), 0.0
        points = 1 if self.climbs else example.points
        # One for all points: ball arithmetic forks a copy of the process for each subject.
        watched = replace(example.case, subject=remembered(example.case.subject, memory))
        try:
            for i in range(min(points, self.left) if searching else points):
                self.left -= searching
                if self.tick:
                    self.tick()
                memory.forget()
                self._judge_point(example, example.seed + i, watched, memory)
            completed = True
            if self.climbs and searching and self.ratio:
                target(log10(self.ratio), label="error / tolerance")
        finally:
            if not completed:  # from here on Hypothesis shrinks the example
                self.schedule.searching, self.failing = False, example.long

    def _judge_point(self, example: Example, seed: int, watched: Case, memory: Memory) -> None:
        """Judge one point; ``watched`` is the case, whose subject adds every call to ``memory``.

        Raises:
            NotTaken: if the subject does not take the dtype, a half precision.
            Disagreement: if the point is refused.
            Exception: whatever the subject raises.
        """
        __tracebackhide__ = True
        judged = partial(self._judge, example.case, example, seed, watched, memory)
        if self.dtype not in HALF_NAMES:
            judged()
            return
        # Points are drawn at which numbers overflow: NumPy's warnings of it say nothing then.
        with np.errstate(all="ignore"):
            outcome = attempt(judged)
            if isinstance(outcome, Raised):
                if not isinstance(outcome.error, Disagreement | NotDeterministic):
                    require_taken(example.case.subject, partial(example.point, seed), self.dtype, outcome.error)
                raise outcome.error

    def _judge(self, case: Case, example: Example, seed: int, watched: Case, memory: Memory) -> None:
        """Judge the point of a seed, see `_judge_point`."""
        point = example.point(seed, self.dtype)
        if self.property_name in ORACLE_PROPERTIES:
            self.counted.coverage.add(case, point)
        oracles, name = self._oracles(case), self.property_name
        if not oracles:
            oracles = [finite_difference(watched.subject)]
            if name in ORACLE_PROPERTIES and example.long.extents and inputs_of(case) > DIFFERENCE_INPUTS:
                name = "adjoint_of_own_primal"
        setting = _setting(case, point, oracles)
        try:
            result = self._result_in_time(name, watched, point, oracles)
            if result is not None:
                self.counted.add(result)
                self.ratio = max(self.ratio, _ratio_of_agreement(result))
                refused = result.refuses and not result.setting
                require(_shown(replace(result, setting=setting) if refused else result, setting))
        except Exception as failure:  # a refusal, or whatever the subject raises
            require_repetition(failure, memory, setting, self.property_name)
            self.last_failure = failure
            raise
        require_determinism(memory, setting, self.property_name)

    def _oracles(self, case: Case) -> list[Rule]:
        """Return the oracles of a case, without the frameworks that are not installed; these are counted as skipped.

        Raises:
            MissingPackage: if the property needs an oracle, and the case has references for missing frameworks alone.
        """
        wanted = [name for name in self.against if getattr(case, name) is not None]
        missing: dict[str, Missing] = {name: lack for name in wanted if (lack := missing_module(name)) is not None}
        if self.property_name in ORACLE_PROPERTIES:
            self.counted.skipped |= missing
            if wanted and len(missing) == len(wanted):
                raise MissingPackage(missing.values())
        return case.oracles([name for name in wanted if name not in missing])

    def _result_in_time(self, name: str, case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
        """Return the result of a property; what no time was left for is inconclusive.

        While an example is shrunk there is no budget: one that ran out of time would seem not to fail any more.
        """
        with time_budget(self.seconds if self.schedule.searching else inf):
            try:
                result = EVERY_PROPERTY[name](case, point, oracles)
            except OutOfTime:
                judges = [oracle.name for oracle in oracles] if name in ORACLE_PROPERTIES else [SELF_CONSISTENCY]
                undecided = Finding("output", "", Verdict.VACUOUS, evidence=Evidence(reason="not judged, out of time"))
                findings = tuple(replace(undecided, oracle=judge, unbounded=True) for judge in judges)
                result = Result(case.subject.name, name, findings)
            self.counted.out_of_time += is_out_of_time()
        return result


def _ratio_of_agreement(result: Result) -> float:
    """Return the largest error / tolerance of what agrees; at a kink that is accepted it says nothing."""
    return max((f.ratio for f in result.findings if f.verdict is Verdict.AGREES and isfinite(f.ratio)), default=0.0)


def _drive(
    judge: _Judge,
    drawn: st.SearchStrategy[Example],
    name: str,
    count: int,
    seed: tuple[int, int] | None,
    *,
    keep: bool,
    sparse: bool,
) -> None:
    """Let Hypothesis draw examples and judge each."""
    __tracebackhide__ = True

    def conforms(example: Example) -> None:
        judge(example)

    conforms.__name__ = conforms.__qualname__ = name
    test = given(drawn)(conforms)
    # Hypothesis's seed takes the database away, and so comes before the settings.
    test = test if seed is None else hypothesis_seed(seed[0] + (seed[1] << 64))(test)
    try:
        _settings(count, keep, sparse)(test)()
    except SkipTest:
        if Phase.generate in settings().phases:
            raise  # else stored examples alone are judged, and there is none


def _with_shorter_axes(
    judge: _Judge, cases: st.SearchStrategy[Case], drive: Callable[..., None], name: str, seed: int | None
) -> Disagreement | None:
    """Return the refusal of an example that fails at shorter axes than the failing one, if that has long axes.

    Hypothesis cannot shrink what the schedule decides. Here it draws the long axes, among those that are no longer.
    """
    __tracebackhide__ = True
    if not judge.failing.extents:
        return None
    axes = st.sampled_from(shorter(judge.failing))
    again = None if seed is None else (seed, 0)
    drawn = examples(cases, judge.schedule, judge.dtype, axes)
    shorter_run = attempt(lambda: drive(drawn, f"{name}_shorter", SHORTER_EXAMPLES, again))
    # Of another failure than the refusal that is known, that one is reported.
    refusal = shorter_run.error if isinstance(shorter_run, Raised) else None
    return refusal if isinstance(refusal, Disagreement) else None


def _settings(count: int, keep: bool, sparse: bool) -> settings:
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
        max_examples=count,
        # A stored example that is replayed would make two runs of one seed differ.
        database=profile.database if keep else None,
    )


def _shown(result: Result, setting: Setting) -> Result:
    """Return a refusal with the outputs called as their user does."""
    if not result.refuses:
        return result
    called = attempt(lambda: setting.subject(**setting.primals)[0])
    return shown(result, called.names) if isinstance(called, Outputs) else result


def _setting(case: Case, point: Point, oracles: Sequence[Rule]) -> Setting:
    return Setting(on_copies(case.subject), tuple(oracles), point.primals, point.delta, case.numerics_at(point.primals))


@dataclass(frozen=True, repr=False)
class Example:
    """A drawn case, and what determines its points.

    Attributes:
        case: the case.
        seed: of the first point; the others have the following ones.
        regime: layout, magnitude, and whether there are special values.
        points: the number of points.
        long: the long axes.
        is_new: whether the schedule sees this example for the first time.
    """

    case: Case
    seed: int
    regime: tuple[str, float, bool]
    points: int
    long: LongAxes
    is_new: bool

    def point(self, seed: int, dtype: str) -> Point:
        """Return the point of a seed in a dtype."""
        layout, magnitude, special = self.regime
        subject = self.case.subject
        point = point_at(
            subject, self.case.primals, dtype, seed=seed, magnitude=magnitude, layout=layout, special=special
        )
        point = replace(point, primals=subject.convention.nearest_point(point.primals))
        several = isinstance(point.delta, tuple)
        return replace(point, delta=masked(point.delta, self._detached)) if several else point

    @cached_property
    def _detached(self) -> list[int]:
        """The outputs that the references detach: they get no cotangent. All points have the same."""
        subject, drawn = self.case.subject, self.case.primals
        primals = subject.convention.nearest_point(point_at(subject, drawn, "float64", seed=self.seed).primals)
        found = set[int]()
        for reference in self.case.oracles([name for name in FRAMEWORKS if missing_module(name) is None]):
            called = attempt(partial(reference, **primals))
            found |= set() if isinstance(called, Raised) else {*without_gradient(called[0])}
        return sorted(found)

    def __repr__(self) -> str:
        """Return what Hypothesis prints where the subject raises: the subject, its shapes and what fills them."""
        shapes = ", ".join(f"{name} {list(drawn.shape)}" for name, drawn in self.case.primals.items())
        layout, magnitude, special = self.regime
        return f"<{self.case.subject.name} at {shapes}: {layout=}, {magnitude=}, {special=}, seed={self.seed}>"


@st.composite
def examples(
    draw: st.DrawFn,
    cases: st.SearchStrategy[Case],
    schedule: Schedule,
    dtype: str,
    axes: st.SearchStrategy[LongAxes] | None = None,
) -> Example:
    """Draw an example: a case in the next slot of a schedule, or with the given long axes.

    Raises:
        CasesFailed: if the strategy raises, or draws anything but a `Case`.
    """
    seed, regime = draw(seeds()), draw(regimes(dtype))
    if axes is None:
        slot, is_new = schedule.take(draw(TICKETS))
    else:
        long = draw(axes)
        slot, is_new = Slot(1 if long.extents else POINTS_PER_CASE, long), True
    # Where the primals would be too large, one axis alone is long, or none.
    for long in (*slot.long.parts(), SHORT) if slot.long.extents else (SHORT,):
        with drawing(long) as calls:
            case = _drawn_case(draw, cases)
        if inputs_of(case) <= MOST_LONG_ENTRIES:
            break
    schedule.learn(calls, case.blocks)
    return Example(case, seed, regime, slot.points, long, is_new)


def _drawn_case(draw: st.DrawFn, cases: st.SearchStrategy[Case]) -> Case:
    """Draw a case; whatever its code raises is a fault of the cases, from which nothing follows for a subject."""
    case = attempt(lambda: draw(cases), reraise=(InvalidInput,))
    if isinstance(case, Raised):
        raise CasesFailed(
            f"no case could be drawn: {describe_error(case.error)}\n"
            "Fix:    correct the code that draws the cases; the subject has not been called"
        ) from case.error
    if not isinstance(case, Case):
        raise CasesFailed(
            f"conformance: the strategy drew {case!r:.60} ({type(case).__name__}), expected an oracles.Case.\n"
            "Fix:    return oracles.Case(subject, primals, torch=..., jax=...)"
        )
    if not isinstance(case.subject, Rule):
        raise CasesFailed(
            f"Case: subject: expected a Rule, got {described(case.subject)}.\n"
            f"Fix:    oracles.Case({adapting_line(case.subject)}, ...)"
        )
    return case


def inputs_of(case: Case) -> int:
    """Return the number of entries of all primals of a case."""
    return sum(prod(drawn.shape) for drawn in case.primals.values())


@dataclass(frozen=True, repr=False)
class Search:
    """One property on a strategy of cases in one dtype, ready to be called: the ``search`` of a decorated test.

    Attributes:
        cases, property_name, dtype, against, max_examples, sparse: as in `run_search`.
        label: what reports and summaries call the subject.
        note: which cases are left out, and why, for the summary.
        options: the options of the command line; the plugin fills them in.
        tally: the results.
        blocks: as in `run_search`.
        any_dtype: whether the dtype is one of the defaults, so that the command line may name others.
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
    any_dtype: bool = False
    blocks: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.property_name} in {self.dtype} on {self.label}>"

    def __call__(self, tick: Callable[[], object] | None = None) -> Tally:
        """Search, and return the tally.

        Args:
            tick: called before every point; what it raises ends the search.

        Under pytest, a test of which no oracle is installed is skipped.

        Raises:
            Disagreement: at the smallest failing point.
            Exception: whatever the subject raises.
        """
        __tracebackhide__ = True
        error = self.attempt(tick)
        if isinstance(error, MissingPackage) and "PYTEST_CURRENT_TEST" in os.environ:
            sys.modules["pytest"].skip(str(error))
        if error is not None:
            raise error
        self.require_points()
        return self.tally

    def require_points(self) -> None:
        """Require that a property on request has judged a point.

        Raises:
            InvalidInput: if no case says which primals are batched, or none has a second order or a forward mode.
        """
        if self.property_name in REQUESTED and not self.tally.points:
            reason = UNAVAILABLE.get(self.property_name)
            if reason is not None:
                raise InvalidInput(f"{self.label}: {self.property_name}: {reason}")
            raise InvalidInput(
                f"{self.label}: {self.property_name}: expected cases that say which primals are batched, got none.\n"
                'Fix:    oracles.Case(..., batched=("z",))      # those whose first axis holds independent rows'
            )

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
                seconds=self.options.seconds or CHECK_SECONDS,
                blocks=self.options.blocks or self.blocks,
                climb=self.options.climb,
                keep=self.options.keep,
            )
        except Disagreement as refusal:
            return refusal
        except (InvalidInput, NotImplementedError, ReferenceFailed) as error:
            return error  # nothing is known of the subject: no verdict
        except Exception as error:  # a subject may raise anything: it fails its search, and the others go on
            if not isinstance(error, InternalError):
                self.tally.verdicts[SELF_CONSISTENCY] = Verdict.WRONG
            return error
        return None


def searches_of(
    entry: Entry, dtypes: Sequence[str] = DTYPE_NAMES, options: SearchOptions = NO_OPTIONS
) -> dict[str, Search]:
    """Return every search that applies to a registered layer, by "property-dtype"."""
    return {
        f"{name}-{dtype}": Search(entry.cases, name, dtype, entry.name, options=options)
        for name in (*properties_of(entry), *options.properties)
        for dtype in dtypes
    }
