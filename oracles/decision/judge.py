"""Judge a subject at one point: evaluate it and its oracles, check shapes and dtypes, then decide array by array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np

from oracles.compiled import repeated
from oracles.constants import (
    ASKED_UNKNOWN,
    DIRECTIONS,
    DRAWN_COTANGENTS,
    EXACT_INPUTS,
    LONE_EXACT_INPUTS,
    MOST_DIFFERENCES,
)
from oracles.decision.comparison import (
    Comparison,
    Neighbourhoods,
    all_agreements,
    certified_enclosures,
    is_known,
    is_zero,
    value_and_radius,
)
from oracles.decision.decisions import decide, with_kinks_together
from oracles.decision.declared_gradients import may_declare_gradient
from oracles.decision.directions import Directions
from oracles.decision.reduced_point import count_inputs, is_reducible, reduced_point
from oracles.decision.type_errors import (
    is_array,
    is_real_array,
    outputs_of,
    refuse,
    refuse_exception,
    require_installed,
    type_errors,
)
from oracles.finite_differences import DIFFERENCES, differences_at, finite_difference, remembering
from oracles.notes import note, with_notes
from oracles.numerics import Numerics, precision_of
from oracles.outputs import masked
from oracles.process_state import steers_a_run
from oracles.rule import (
    Answer,
    Array,
    Enclosure,
    InternalError,
    InvalidInput,
    NotPerturbable,
    Output,
    Primals,
    Pullback,
    ReferenceFailed,
    Rule,
    as_tuple,
    is_differentiable,
    is_real,
    with_dtype,
)
from oracles.stages import announce
from oracles.time_budget import OutOfTime, is_out_of_time
from oracles.tolerance import ToleranceEstimator, named_outputs, tolerance_at
from oracles.user_code import Raised, attempt, describe_fault, own_faults, part_of_judge
from oracles.verdict import EXACT, Evidence, Finding, Result, Setting, Verdict

Kinks = Literal["any", "declared"]
P = ParamSpec("P")
T = TypeVar("T")


def drawn_cotangents(
    subject: Rule, primals: Primals, rng: np.random.Generator, count: int = DRAWN_COTANGENTS
) -> list[Any]:
    """Draw signed cotangents for the subject's output, in its shape and dtype.

    Never all ones: under a cotangent of ones an all-zero softmax backward passes.
    """
    return cotangents_like(subject(**primals)[0], rng, count)


def cotangents_like(y: object, rng: np.random.Generator, count: int = DRAWN_COTANGENTS) -> list[Any]:
    """Draw signed cotangents in the shape and dtype of an output; a number for an output that is not an array."""
    parts = [np.asarray(p if is_array(p) or isinstance(p, float) else 0.0) for p in as_tuple(y)]
    # An output of integers has no cotangent, but a pullback takes one array for each output: zeros, next to others.
    likes = [p if is_differentiable(p) else np.zeros(p.shape) for p in parts]
    silent = [i for i, p in enumerate(parts) if not is_differentiable(p)]
    draws = [tuple(_signed(rng, p).astype(p.dtype) for p in likes) for _ in range(count)]
    masks = [as_tuple(masked(parts, silent)) for parts in draws]
    return [parts if isinstance(y, tuple | list) else parts[0] for parts in masks]


def _signed(rng: np.random.Generator, like: Array) -> Array:
    """Draw signed numbers; the one of a loss in float16 is at least 1, since its mean's gradient may underflow."""
    drawn = np.asarray(rng.standard_normal(like.shape))
    return drawn + np.copysign(1.0, drawn) if like.size == 1 and like.dtype == np.float16 else drawn


@with_notes
def judge(
    subject: Rule,
    primals: Primals,
    delta: Output,
    oracles: Sequence[Rule],
    *,
    numerics: Numerics | str | None = None,
    kinks: Kinks = "any",
    only: Iterable[str] | None = None,
    property_name: str = "cotangents_agree",
    called: tuple[Output, Pullback] | None = None,
) -> Result:
    """Judge one evaluation of the subject against every oracle, and return the result without raising.

    Args:
        subject, primals, delta, oracles, kinks: as in `check`.
        numerics: as in `check`, or the precision alone.
        only: judge these quantities alone ("output", or names of primals).
        property_name: the property that the result names.
        called: what the subject returned at the point already, so that it need not be called again.

    Raises:
        InvalidInput: if a package is missing, or the subject's adapter refuses the point.
        ReferenceFailed: if a reference raises.
    """
    declared = numerics or subject.numerics
    working = Numerics.declared(declared, primals)
    setting = Setting(subject, tuple(oracles), primals, delta, working)
    try:
        setting = _aligned(setting)
        # An aligned subject is another one.
        forward = _evaluate_forward(setting, called if setting.subject is subject else None)
        subject = setting.subject
        if not forward.has_shapes:  # delta does not fit the oracles' pullbacks
            return Result(subject.name, property_name, forward.errors, setting=setting)
        cotangents, answers = _evaluate_pullbacks(setting, forward)
        # What the oracles keep for their pullbacks is as large as a point, and needed no more.
        forward = replace(forward, evaluated={})
    except _SubjectRaised as failure:
        finding = refuse_exception(failure.call, failure.error)
        return Result(subject.name, property_name, (finding,), setting=setting, cause=failure.error)
    reduced: dict[str, Result] = {}
    integers = {n for n, a in primals.items() if not is_differentiable(a)}
    names = {*forward.outputs, *primals} if only is None else set(only)
    not_claimed = tuple(n for n in primals if n not in {*cotangents, *integers} and n in names)
    actual = {**forward.outputs, **cotangents}
    if only is not None:
        actual = {n: a for n, a in actual.items() if n in names}
    # Before all comparisons: values are comparable only in the right shape.
    errors = type_errors(actual, forward.expected, working.store)
    violations = subject.convention.violations(primals, delta, cotangents, working.store)
    errors += tuple(refuse(n, reason) for n, reason in violations.items() if n in actual)
    native = None if declared else (primals, delta)
    with own_faults():
        arrays = {n: a for n, a in actual.items() if n not in {f.quantity for f in errors}}
        try:
            findings = _compare(arrays, answers, forward.expected, setting, kinks, native, reduced)
            findings = _with_own_primal(findings, setting, numerics, kinks)
        except OutOfTime:
            findings = _not_compared(arrays, setting)
    return Result(subject.name, property_name, (*errors, *findings), not_claimed, setting, reduced=reduced)


class _SubjectRaised(Exception):
    """The subject, or an oracle that evaluates the subject's own primal, raised an exception."""

    def __init__(self, call: str, error: Exception) -> None:
        super().__init__(call, error)
        self.call, self.error = call, error


@contextmanager
def _subject_call(call: str) -> Iterator[None]:
    """Attribute exceptions inside the block to the subject; invalid input and failed references pass."""
    try:
        yield
    except (InternalError, InvalidInput, ReferenceFailed):
        raise
    except Exception as error:  # the subject may raise anything, and the exception is the finding
        if part_of_judge(error) or steers_a_run(error):
            raise
        raise _SubjectRaised(call, error) from error


@dataclass(frozen=True)
class _Forward:
    """The forward passes of subject and oracles.

    Attributes:
        outputs: the subject's outputs by name, of any type.
        pullback: the subject's pullback.
        evaluated: what each oracle returned, (y, pullback), by its name.
        expected: arrays of the shapes and dtypes that outputs and cotangents must have, by name.
        errors: the type errors of the outputs.
    """

    outputs: dict[str, Any]
    pullback: Pullback
    evaluated: Mapping[str, tuple[Any, Pullback]]
    expected: Mapping[str, Array]
    errors: tuple[Finding, ...]

    @property
    def has_shapes(self) -> bool:
        """Whether every output is an array of real numbers, of the expected shape."""
        return all(
            n in self.expected and is_real_array(a) and a.shape == np.shape(self.expected[n])
            for n, a in self.outputs.items()
        )


def _aligned(setting: Setting) -> Setting:
    """Return the setting with what the problem leaves open chosen alike by the subject and the oracles."""
    with _subject_call("the forward"):
        convention = setting.subject.convention
        subject, oracles = convention.aligned(setting.subject, setting.oracles, setting.primals)
    return replace(setting, subject=subject, oracles=oracles)


def _evaluate_forward(setting: Setting, called: tuple[Output, Pullback] | None) -> _Forward:
    """Evaluate the subject at the point, unless it was ``called`` already, and the oracles there in float64."""
    primals = setting.primals
    wide = with_dtype(dict(primals), np.float64)
    with _subject_call("the forward"):
        y, pullback = called or setting.subject(**primals)
        evaluated = _ask_all(setting.oracles, lambda oracle: _call(oracle, oracle, **wide))
        expected = {**_expected_outputs(evaluated, primals), **primals}
        outputs = named_outputs(outputs_of(y, precision_of(primals)), {})
        return _Forward(outputs, pullback, evaluated, expected, type_errors(outputs, expected, setting.precision))


def _evaluate_pullbacks(setting: Setting, forward: _Forward) -> tuple[dict[str, Any], dict[str, Mapping[str, Answer]]]:
    """Return the subject's cotangents by name, and every oracle's outputs and cotangents by the oracle's name."""
    delta = with_dtype(setting.delta, np.float64)
    integers = {n for n, a in setting.primals.items() if not is_differentiable(a)}
    with _subject_call("the pullback"):
        cotangents = {n: g for n, g in dict(forward.pullback(setting.delta)).items() if n not in integers}

        def answers_of(oracle: Rule) -> Mapping[str, Answer]:
            y, pullback = forward.evaluated[oracle.name]
            try:
                values = dict(_call(oracle, pullback, delta))
            except ReferenceFailed:
                if cotangents:
                    raise
                # Nothing is asked of a reference that has no derivative, if its subject has none: an optimizer's step.
                values = {n: np.zeros(a.shape) for n, a in setting.primals.items() if n not in integers}
            return named_outputs(as_tuple(y), values)

        answers = _ask_all([o for o in setting.oracles if o.name in forward.evaluated], answers_of)
    return cotangents, answers


def _ask_all(oracles: Sequence[Rule], ask: Callable[[Rule], T]) -> dict[str, T]:
    """Ask every oracle, and return the answers by name; one whose own code fails is left out, with a note.

    Raises:
        InternalError: if none is left.
    """
    answers: dict[str, T] = {}
    fault: Exception | None = None
    for oracle in oracles:
        try:
            answers[oracle.name] = ask(oracle)
        except Exception as error:  # a fault of the judge may be of any type; the subject's is raised
            if not part_of_judge(error):
                raise
            fault = error
            note(f"{oracle.name} steps aside: {describe_fault(error)}")
    if fault is not None and not answers:
        with own_faults():
            raise fault
    return answers


def _call(oracle: Rule, function: Callable[P, T], *args: P.args, **primals: P.kwargs) -> T:
    """Call an oracle; an exception of its reference says nothing about the subject."""
    result = attempt(lambda: function(*args, **primals), reraise=(InvalidInput, NotPerturbable, ReferenceFailed))
    if not isinstance(result, Raised):
        return result
    error = result.error
    require_installed(error)
    if oracle.reference is None:
        raise error  # it evaluates the subject's own primal
    point = ", ".join(f"{n} {np.asarray(a).dtype}{list(np.asarray(a).shape)}" for n, a in primals.items())
    raise ReferenceFailed(
        f"{oracle.name}: the reference raised {type(error).__name__}: {error}\n"
        f"Nothing is known of the subject{' at ' + point if point else ''}. The judge asks references in float64."
    ) from error


def _with_differences(
    answers: dict[str, Mapping[str, Answer]], names: set[str], setting: Setting
) -> dict[str, Mapping[str, Answer]]:
    """Ask finite differences of the subject's own primal for the entries of cotangents that no oracle knows.

    torch and JAX have no derivative where theirs is NaN: eigenvectors of equal eigenvalues, a norm at zero.
    """
    if DIFFERENCES in answers:
        return answers
    differences: dict[str, Answer] = {}
    primals, delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    subject = repeated(setting.subject)
    for name in names & primals.keys():
        known = [is_known(*value_and_radius(values[name])) for values in answers.values() if name in values]
        unknown = ~np.any(known, axis=0) & np.isfinite(primals[name])
        if 0 < np.count_nonzero(unknown) <= ASKED_UNKNOWN:
            entries = np.flatnonzero(unknown)
            slopes = attempt(partial(differences_at, entries, name, subject, primals, delta))
            if not isinstance(slopes, Raised):
                differences[name] = slopes
    return {**answers, DIFFERENCES: differences} if differences else answers


def _with_suspicious(
    answers: dict[str, Mapping[str, Answer]],
    arrays: Mapping[str, Array],
    setting: Setting,
    estimator: ToleranceEstimator,
) -> dict[str, Mapping[str, Answer]]:
    """Measure the entries that directions find, where finite differences alone judge a point of many inputs."""
    if len(answers) > 1 or count_inputs(setting.primals) <= MOST_DIFFERENCES:
        return answers
    rule = next((o.implementation for o in setting.oracles if o.name == DIFFERENCES), None)
    if not isinstance(rule, Rule):
        return answers
    primals, delta, tolerances = estimator.primals, estimator.delta, estimator.estimate()
    measured = dict(answers.get(DIFFERENCES, {}))
    for n in [n for n in measured if n in primals and n in arrays]:
        answer, actual = measured[n], np.asarray(arrays[n], np.float64)
        _, radius = value_and_radius(answer)
        entry = attempt(Directions(rule, primals, delta, n, actual, tolerances[n]).suspicious_entry)
        if isinstance(entry, Raised):
            note(f"{n}: no direction is judged: {describe_fault(entry.error)}")
        elif entry is not None:
            more = differences_at(np.array([entry]), n, rule, primals, delta)
            known = np.isfinite(more.radius)
            mid = np.where(known, more.mid, value_and_radius(answer)[0])
            measured[n] = Enclosure(mid, np.where(known, more.radius, radius))
        count = np.count_nonzero(np.isfinite(radius))
        note(f"{n}: {count} of {actual.size} entries are measured, all along {DIRECTIONS} directions for each delta")
    return {**answers, DIFFERENCES: measured}


def _expected_outputs(evaluated: Mapping[str, tuple[Any, Pullback]], primals: Primals) -> dict[str, Array]:
    """Return arrays with the shapes of an oracle's outputs and the dtype of the floating primals; integers as such."""
    dtypes = [a.dtype for a in primals.values() if is_differentiable(a)]
    dtype = np.result_type(*dtypes) if dtypes else np.dtype(np.float64)
    parts = [
        value_and_radius(p)[0] if isinstance(p, Enclosure) else p for p in as_tuple(next(iter(evaluated.values()))[0])
    ]
    # Real numbers are expected of a subject, also where its own primal is the oracle.
    dtypes = [dtype if is_differentiable(part) or not is_real(part) else np.asarray(part).dtype for part in parts]
    return named_outputs(
        tuple(np.broadcast_to(np.zeros((), own), np.shape(part)) for own, part in zip(dtypes, parts, strict=True)), {}
    )


def _compare(
    arrays: Mapping[str, Array],
    answers: dict[str, Mapping[str, Answer]],
    expected: Mapping[str, Array],
    setting: Setting,
    kinks: Kinks,
    native: tuple[Primals, Output] | None,
    reduced: dict[str, Result],
) -> list[Finding]:
    """Compare the values of all arrays without type errors: at once where all agree, else array by array.

    ``native`` is the point in the subject's dtypes, unless numerics are declared for all arrays. Results at smaller
    points are added to ``reduced``.
    """
    subject, oracles, numerics = setting.subject, setting.oracles, setting.numerics
    primals, delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    most_inputs = EXACT_INPUTS if any(oracle.reference for oracle in oracles) else LONE_EXACT_INPUTS
    few_inputs = count_inputs(primals) <= most_inputs
    estimator = tolerance_at(oracles, primals, delta, numerics, fallback=subject, known=answers, native=native)
    by_references = answers
    # A coarser dtype is a decision of its own, which the comparison of all arrays at once does not make.
    has_dtypes = all(a.dtype == expected[n].dtype for n, a in arrays.items())
    # Most kernels round once, and the sharpest tolerance says the most.
    for point in filter(None, (estimator.sharpest if has_dtypes else None, estimator)):
        certified = certified_enclosures(subject, point) if few_inputs else {}
        answers = {**by_references, EXACT: certified} if certified else by_references
        answers = _with_differences(answers, set(arrays), setting)
        answers = _with_suspicious(answers, arrays, setting, point)
        # After the estimator: its tolerance is that of the oracles' own values.
        answers = dict(subject.convention.adjusted(setting.primals, arrays, answers))
        agreements = all_agreements(arrays, answers, point) if has_dtypes else None
        if agreements is not None:
            return agreements
    findings: dict[str, list[Finding]] = {}
    comparisons: list[Comparison] = []
    neighbourhoods: Neighbourhoods = {}
    for n, array in arrays.items():
        by_oracle = {oracle: values[n] for oracle, values in answers.items() if n in values}
        announce(None, f"deciding on {n}")
        own = estimator.of_array(n)
        tolerance = own.estimate()[n]
        comparison = Comparison(n, array, by_oracle, tolerance, own, setting, neighbourhoods, kinks == "declared")
        comparisons.append(comparison)
        try:
            findings[n] = _refused_at_smaller_point(comparison, native, reduced) or decide(comparison)
        except OutOfTime:
            findings[n] = comparison.undecided()
    with suppress(OutOfTime):
        findings = dict(with_kinks_together(comparisons, findings))
    return list(chain.from_iterable(findings.values()))


def _with_own_primal(
    findings: list[Finding], setting: Setting, numerics: Numerics | str | None, kinks: Kinks
) -> list[Finding]:
    """Judge the cotangents of which references know less than half by the subject's own primal.

    The derivative of a reference may jump where that of the function does not, such as the eigenvectors of equal
    eigenvalues in a matrix root: then its tolerance is as large as its values.
    """
    subject, primals, delta = setting.subject, setting.primals, setting.delta
    # In a coarser precision it is rounding that hides a gradient: it saturates, or underflows, in any right code.
    if setting.precision != "float64" or not all(o.reference for o in setting.oracles):
        return findings
    if is_zero(delta) or is_out_of_time():
        return findings
    # An error beyond a tolerance was decided, at a kink too.
    known = {f.quantity for f in findings if f.verdict is Verdict.AGREES or f.refuses or f.ratio > 1}
    known |= {f.quantity for f in findings if 2 * f.open <= f.judged[1]}
    unknown = {f.quantity for f in findings if f.quantity in primals and np.size(primals[f.quantity])} - known
    wide = with_dtype(dict(primals), np.float64)
    if not unknown or count_inputs(primals) > MOST_DIFFERENCES:
        return findings
    if any(may_declare_gradient(o, wide) for o in setting.oracles):
        return findings  # the gradient that is wanted may be another one
    by_differences = (finite_difference(remembering(subject)),)
    result = judge(subject, primals, delta, by_differences, numerics=numerics, kinks=kinks, only=unknown)
    decided = {f.quantity for f in result.findings if f.refuses or (f.verdict is Verdict.AGREES and f.judged[0])}
    decided &= unknown
    for n in sorted(decided):
        note(f"{n}: the references know little of it here; the subject's own primal judges it")
    others = [f for f in findings if f.quantity not in decided]
    return [*others, *(f for f in result.findings if f.quantity in decided)]


def _not_compared(arrays: Mapping[str, Array], setting: Setting) -> list[Finding]:
    """Return the findings on arrays of which no time is left to estimate a tolerance."""
    evidence = Evidence(reason="not compared, out of time")
    return [
        Finding(n, o.name, Verdict.VACUOUS, evidence=evidence, judged=(0, np.size(a)), unbounded=True)
        for n, a in arrays.items()
        for o in setting.oracles
    ]


def _refused_at_smaller_point(
    comparison: Comparison, native: tuple[Primals, Output] | None, reduced: dict[str, Result]
) -> list[Finding]:
    """Return the findings on a gross error of a large point that a smaller point shows as well; none if none does."""
    setting, name = comparison.setting, comparison.name
    if not is_reducible(comparison):
        return []
    # Another array may be wrong at the same smaller point, for the same reason.
    for result in (*reduced.values(), None):
        if result is None:
            point = reduced_point(comparison)
            if point is None:
                return []
            numerics = None if native else setting.numerics
            kinks: Kinks = "declared" if comparison.declared_kinks else "any"
            result = judge(setting.subject, *point, setting.oracles, numerics=numerics, kinks=kinks)
        worst = max((f for f in result.findings if f.quantity == name), key=lambda f: f.gravity, default=None)
        if worst is not None and worst.refuses:
            reduced[name] = result
            findings = comparison.findings(worst.verdict, reason=worst.evidence.reason)
            fix = worst.evidence.fix
            return [replace(f, evidence=replace(f.evidence, fix=fix)) if f.refuses else f for f in findings]
    return []
