"""Judge a subject at one point: against its oracles, under several cotangents, and against itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np

from oracles.backends.arrays import copied, numpy_array
from oracles.backends.devices import Device, placed
from oracles.constants import (
    CHECK_SECONDS,
    DRAWN_COTANGENTS,
    LONE_COTANGENT_INPUTS,
    MOST_DIFFERENCES,
    PROPORTIONAL_ENTRIES,
    PROPORTIONAL_ERROR,
    REDUCED_INPUTS,
)
from oracles.decision.judge import Kinks, cotangents_like, judge
from oracles.decision.reduced_point import count_inputs, part_of
from oracles.decision.type_errors import CALL, refuse_exception
from oracles.derivatives import FORWARD, SECOND, joined, named_as, require_derivatives
from oracles.evaluations import Memory, on_copies, remembered
from oracles.few_calls import FirstCall, answers_again, few_calls_agree, pulls_back_again, second_call
from oracles.finite_differences import finite_difference, remembering
from oracles.forward_mode import forward_mode
from oracles.invariance import invariance_result, require_invariances
from oracles.layouts import check_layouts, check_shared
from oracles.notes import note, with_notes
from oracles.numerics import Numerics, is_coarser, precision_name, precision_of
from oracles.options import Mode
from oracles.outputs import flat_delta, masked, plan_of, shown
from oracles.process_state import judging
from oracles.report.disagreement import require_conclusive
from oracles.rule import Array, InvalidInput, Output, Primals, Pullback, Rule, as_tuple, is_differentiable
from oracles.second_order import (
    SecondOrder,
    has_second_order,
    hessian_findings,
    of_twice_differentiable,
    second_order,
    with_zeros,
)
from oracles.self_consistency import (
    check_mutation,
    check_repeatability,
    contradiction_findings,
    notes_of_aliasing,
    self_tolerance_at,
)
from oracles.stages import announce
from oracles.structure import flattened, place_of, rule_of_leaves
from oracles.time_budget import OutOfTime, is_out_of_time, require_time, time_budget
from oracles.usage import require_rules
from oracles.user_code import Raised, attempt, own_faults, part_of_judge
from oracles.verdict import Result, Setting, Verdict

T = TypeVar("T")
Called: TypeAlias = tuple[Output, Pullback]


@judging()
def check(
    subject: Rule,
    primals: Mapping[str, Any],
    against: Sequence[Rule] = (),
    delta: Any = None,
    *,
    precision: str | None = None,
    numerics: Numerics | None = None,
    kinks: Kinks = "any",
    properties: Sequence[str] = (),
    batched: Sequence[str] = (),
    device: Device = None,
    isolate: bool = False,
    seconds: float = CHECK_SECONDS,
    seed: int = 0,
    outputs: str | int | Sequence[str | int] | None = None,
    order: int = 1,
    mode: Mode = "vjp",
) -> Result:
    """Judge the subject's output and pullback at one point; return the result if nothing refuses the subject.

    The values are compared with every oracle. The subject must also write into none of its arguments, and give the same
    results every time, in every way that it can be called, and for strided, repeated and shared arrays.

    Args:
        subject: the Rule under test, see `oracles.manual`.
        primals: its inputs by name: arrays of NumPy, torch or JAX, or trees of them (dicts, lists, namedtuples,
            dataclasses), called ``params["W"]``, ``layers[0].b``. Cotangents of floating ones are judged.
        against: the oracles. Without any, finite differences of the subject's own primal judge it, and ball arithmetic
            too if python-flint is installed and the primal is written in NumPy.
        delta: the cotangent of the output, in its structure; by default three signed ones are drawn from ``seed``, or
            one if there are more than a million inputs.
        precision: the precision that the subject computes in, if it is lower than that of its inputs: ``"float32"``.
        numerics: what the subject stores, sums and multiplies in, ``oracles.Numerics("bfloat16")``. By default 16 bits
            are summed in float32, and either each result is rounded once or every intermediate is.
        kinks: at points without a derivative, "any" accepts every subgradient, "declared" only the one that the
            references give.
        properties: what is judged besides, on request: "batch_invariant", "chunk_invariant", "deterministic".
        batched: the primals whose first axis holds independent rows, for the first two.
        device: where the arrays of a torch, JAX or CuPy subject lie, and where torch evaluates and perturbs the
            references in float64: "cuda", "cuda:1", "cpu"; by default where torch or CuPy has the primals.
        isolate: run the subject in a process of its own, see `oracles.isolated`: a crash is then a finding.
        seconds: the time budget. When it is over, the result says what was not done; an array that was found to be off
            and not decided is inconclusive. One call is never interrupted, unless the subject is isolated.
        seed: the seed of the drawn cotangents.
        outputs: the outputs that are judged, by name (``"loss"``) or position; by default all.
        order: 2 judges the derivative of the pullback too: by the subject's own double backward, or by finite
            differences of its pullback, in float64.
        mode: "vjp" judges the pullback, "jvp" the subject's forward mode, the directional derivative along random
            tangents; "both" judges both, and one against the other.

    Returns:
        The `Result`, with a finding for every array and oracle.

    Raises:
        Disagreement: (an AssertionError) if the subject is refused; it carries the verdict and its evidence.
        Inconclusive: (an AssertionError) if nothing bounds a whole cotangent: no oracle has a finite value, or every
            tolerance is infinite. Where rounding can move one by its size, an `InconclusiveWarning` is given.
        InvalidInput: (a TypeError and a ValueError) if the arguments do not fit together; states what was expected.
        ReferenceFailed: if a reference raises, so that nothing is known about the subject.
    """
    require_rules(subject, primals, against)
    subject, arrays, against = _of_leaves(subject, primals, against, device)
    subject = _limited(subject, seconds, isolate)
    requested = require_invariances("check", properties, batched, arrays)
    require_derivatives("check", order, mode)
    working = declared_numerics(precision, numerics, precision_of(arrays))
    with time_budget(seconds):
        if mode == "jvp":
            return _tangent_judged(subject, arrays, against, working, kinks, seed, mode)
        result = _judged(subject, arrays, against, delta, working, kinks, seed, outputs)
        result = _with_invariances(result, subject, requested, batched)
        results = [require_conclusive(_without_agreement_of_nothing(result, arrays))]
        if order == 2:
            results.append(_second_judged(results[0], seed, bool(against)))
        if mode == "both":
            results.append(_tangent_judged(subject, arrays, against, working, kinks, seed, mode))
        return joined(results)


def _of_leaves(
    subject: Rule, primals: Mapping[str, Any], against: Sequence[Rule], device: Device
) -> tuple[Rule, dict[str, Array], list[Rule]]:
    """Return copies of the arrays in all primals by name, and the rules that take these, on a device."""
    trees, leaves = flattened(primals)
    arrays = {name: copied(numpy_array(place_of(name, primals), value)) for name, value in leaves.items()}
    rules = [rule_of_leaves(rule, trees) for rule in (subject, *against)]
    subject, oracles = placed(rules[0], rules[1:], device, leaves)
    return subject, arrays, list(oracles)


def _limited(subject: Rule, seconds: float, isolate: bool) -> Rule:
    """Return the subject, in a process of its own if ``isolate``; the time limit must be positive."""
    if not seconds > 0:
        raise InvalidInput(f"check: seconds: expected a positive number, got {seconds!r}")
    if not isolate:
        return subject
    from oracles.adapters.child_process import isolated  # needs cloudpickle

    return isolated(subject, seconds=seconds)


def declared_numerics(precision: str | None, numerics: Numerics | None, fed: str) -> Numerics | None:
    """Return what `check` is given as ``precision`` or ``numerics`` of a subject that is fed with some precision.

    Args:
        precision: the precision that the subject computes in.
        numerics: what it stores, accumulates and multiplies in.
        fed: the precision of its primals.

    Returns:
        The numerics; ``None`` if nothing is declared.

    Raises:
        InvalidInput: for both, or another type.
    """
    if precision is not None and numerics is None:
        computed = precision_name(precision)
        # Finer than what it is fed with: each result is stored, from arithmetic in that precision.
        return Numerics(fed, accumulate=computed) if is_coarser(fed, computed) else Numerics.of(computed)
    if numerics is None:
        return None
    if not isinstance(numerics, Numerics):
        raise InvalidInput(
            f"check: numerics: expected an oracles.Numerics, got {numerics!r:.80}.\n"
            'Fix:    numerics=oracles.Numerics("bfloat16", accumulate="float32")'
        )
    if precision is not None:
        raise InvalidInput("check: precision is the short form of numerics.store.\nFix:    give one of the two")
    return numerics


@with_notes
def _judged(
    subject: Rule,
    arrays: Primals,
    against: Sequence[Rule],
    delta: Any,
    numerics: Numerics | None,
    kinks: Kinks,
    seed: int,
    outputs: str | int | Sequence[str | int] | None = None,
    compares_calls: bool = True,
) -> Result:
    """Return the result of `check`, whatever it says; ``compares_calls``: the subject with itself, too."""
    working = Numerics.declared(numerics or subject.numerics, arrays)
    # Finite differences call the subject at points of their own, where no answer need be remembered.
    oracles = _uniquely_named(against) or (finite_difference(remembering(on_copies(subject))),)
    given, subject = subject, remembered(subject, memory := Memory())
    guarded = on_copies(subject)
    setting = Setting(guarded, oracles, arrays, (), working)
    call = _try_subject(lambda: FirstCall(subject, arrays), "the forward", setting, (InvalidInput,))
    if isinstance(call, Result):
        return call
    plan = plan_of(given, call.y, oracles, arrays, outputs)
    if plan.changed:
        at = plan.subject, arrays, plan.oracles, plan.delta_of(delta, call.y)
        return _judged(*at, numerics, kinks, seed, compares_calls=compares_calls)
    oracles = plan.oracles
    deltas = [masked(d, plan.without) for d in _deltas(call.y, arrays, flat_delta(delta, call.y), seed)]

    judge_at = partial(judge, guarded, arrays, oracles=oracles, numerics=numerics, kinks=kinks, property_name="check")
    announce(f"judging under cotangent 1 of {len(deltas)}")
    results = [judge_at(deltas[0], called=(call.y, call.pullback))]
    setting = Setting(subject, oracles, arrays, deltas[0], working)
    second = _second_call(results[0], setting, call) if compares_calls else None
    agree = second is not None or not compares_calls
    for i, d in enumerate(deltas[1:], 1):
        if not _may_go_on(results[-1], bool(against)):
            break
        if is_out_of_time():
            note(f"judged under {i} of {len(deltas)} cotangents, out of time")
            break
        announce(f"judging under cotangent {i + 1} of {len(deltas)}")
        # After all other calls, the second one must still give the right answer, and so must one more call.
        result = judge_at(d, called=second if i == 1 else None)
        if i == 1 and second and result.refuses:
            result = judge_at(d)
            agree = agree and result.refuses
        results.append(result)
    results = _with_own_answers(results, setting, memory, call, second, agree=agree)
    memory.close()
    return shown(_merge(results), plan.names, plan.unclaimed)


def _with_own_answers(
    results: list[Result], setting: Setting, memory: Memory, call: FirstCall, second: Called | None, *, agree: bool
) -> list[Result]:
    """Return the results, and that of the subject's comparison with itself where one of the few calls differs.

    ``agree``: whether none of them differs so far.
    """
    if second and len(results) == 1:
        agree = answers_again(setting, call, second)
    agree = agree and call.is_unchanged
    # What is refused already needs no further call.
    if agree and second and not (is_out_of_time() or any(result.refuses for result in results)):
        agree = pulls_back_again(setting, call)
    if agree and not memory.contradictions:
        return [replace(results[0], notes=(*results[0].notes, *call.notes())), *results[1:]]
    return results + _further_calls(results, setting, memory)


def _second_judged(first: Result, seed: int, has_reference: bool) -> Result:
    """Return the result of the second order at the point of a result of the first.

    Raises:
        Disagreement: if it refuses the subject.
        Inconclusive: if nothing bounds a whole derivative.
    """
    assert first.setting is not None
    setting, claimed = first.setting, {f.quantity for f in first.findings}
    wrt = [n for n in setting.primals if n in claimed]
    announce("judging the second order")
    point = setting.subject, setting.primals, setting.delta
    if not (has_reference or has_second_order(setting.subject)):
        # Finite differences of the pullback could be compared with themselves alone.
        findings = tuple(hessian_findings(*point, wrt))
        result = Result(setting.subject.name, "check", findings, setting=setting)
        return require_conclusive(named_as(result, SECOND, ()))
    second = second_order(*point, setting.oracles if has_reference else (), wrt)

    def judged(second: SecondOrder) -> Result:
        # The pullback of a kink is a step, which has no derivative: conventions are those of the first order. There
        # the calls of the pullback were compared, and finite differences call nothing else.
        own = has_second_order(setting.subject)
        at = second.subject, second.primals, second.oracles
        return _judged(*at, None, setting.numerics, "any", seed, compares_calls=own)

    result = of_twice_differentiable(second, judged)
    return require_conclusive(named_as(with_zeros(result), SECOND, second.names))


def _tangent_judged(
    subject: Rule,
    arrays: Primals,
    against: Sequence[Rule],
    numerics: Numerics | None,
    kinks: Kinks,
    seed: int,
    mode: Mode,
) -> Result:
    """Return the result of the forward mode at a point.

    Raises:
        Disagreement: if it refuses the subject.
        Inconclusive: if nothing bounds a whole derivative.
    """
    announce("judging the forward mode")
    forward = forward_mode(subject, arrays, against, np.random.default_rng((seed, 2)), both=mode == "both")
    result = _judged(forward.subject, forward.primals, forward.oracles, None, numerics, kinks, seed)
    return require_conclusive(named_as(result, FORWARD, forward.names))


def _with_invariances(result: Result, subject: Rule, names: Sequence[str], batched: Sequence[str]) -> Result:
    """Return the result with those of properties on request; without, if the subject raised at the point."""
    if result.setting is None or any(f.quantity == CALL for f in result.findings):
        return result
    setting = replace(result.setting, subject=subject)
    results = [result]
    for name in names:
        announce(f"comparing bits: {name}")
        try:
            require_time()
            results.append(invariance_result(name, setting, batched))
        except OutOfTime:
            results[0] = replace(result, notes=(*result.notes, f"{name}: not judged, out of time"))
    return _merge(results) if names else result


def _without_agreement_of_nothing(result: Result, arrays: Primals) -> Result:
    """Return the result with VACUOUS for AGREES, if every floating primal is empty: any gradient would agree."""
    floating = [a for a in arrays.values() if is_differentiable(a)]
    if not floating or any(a.size for a in floating):
        return result
    findings = [replace(f, verdict=Verdict.VACUOUS) if f.verdict is Verdict.AGREES else f for f in result.findings]
    return replace(result, findings=tuple(findings), notes=(*result.notes, "every primal is empty: nothing was judged"))


def _may_go_on(result: Result, has_reference: bool) -> bool:
    """Return whether another cotangent may give a graver result: none accepts what this one refuses."""
    assert result.setting is not None
    # A large point takes long besides.
    is_large = count_inputs(result.setting.primals) > (REDUCED_INPUTS if has_reference else MOST_DIFFERENCES)
    return not (result.verdict is Verdict.WRONG or (result.refuses and is_large))


def _merge(results: Sequence[Result]) -> Result:
    """Return one result with the findings of all; its setting is that of the gravest finding."""
    worst = max(results, key=lambda result: result.gravity)
    return Result(
        worst.subject,
        "check",
        tuple(finding for result in results for finding in result.findings),
        not_claimed=tuple(dict.fromkeys(name for result in results for name in result.not_claimed)),
        setting=worst.setting,
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
        cause=next((result.cause for result in results if result.cause), None),
        reduced=worst.reduced,
    )


def _uniquely_named(oracles: Sequence[Rule]) -> tuple[Rule, ...]:
    """Number the oracles whose names repeat: two references may both be called "torch"."""
    counts: dict[str, int] = {}
    renamed = []
    for oracle in oracles:
        counts[oracle.name] = count = counts.get(oracle.name, 0) + 1
        renamed.append(oracle if count == 1 else replace(oracle, name=f"{oracle.name} {count}"))
    return tuple(renamed)


def _try_subject(
    call: Callable[[], T], what: str, setting: Setting, reraise: tuple[type[Exception], ...] = ()
) -> T | Result:
    """Return the result of a call of the subject, or the `Result` that refuses the subject for raising."""
    result = attempt(call, reraise=reraise)
    if isinstance(result, Raised):
        with own_faults():
            if part_of_judge(result.error):
                raise result.error
        finding, cause = refuse_exception(what, result.error), result.error
        return Result(setting.subject.name, "check", (finding,), setting=setting, cause=cause)
    return result


def _deltas(y: Output, primals: Primals, delta: Any, seed: int) -> list[Output]:
    """Return the given cotangent, or three drawn ones, one at a large point, in the structure of the subject's output.

    Raises:
        InvalidInput: if the given cotangent has other shapes than the output.
    """
    if delta is None:
        count = DRAWN_COTANGENTS if count_inputs(primals) <= LONE_COTANGENT_INPUTS else 1
        drawn = cotangents_like(y, np.random.default_rng(seed), count)
        if not any(_are_proportional(part, a) for d in drawn for part in as_tuple(d) for a in primals.values()):
            return drawn
        # The primals may come from a generator of the same seed. Of z itself, a normalization has no gradient.
        return cotangents_like(y, np.random.default_rng((seed, 1)), count)
    parts = tuple(numpy_array("delta", d) for d in as_tuple(delta))
    expected, actual = [np.shape(part) for part in as_tuple(y)], [d.shape for d in parts]
    if expected != actual:
        like = ", ".join(f"rng.standard_normal({shape})" for shape in expected)
        raise InvalidInput(
            f"delta: expected shape {', '.join(map(str, expected))} like the output, got "
            f"{', '.join(map(str, actual))}.\n"
            f"Fix: leave delta out, and three are drawn; or\n    delta={like if len(expected) == 1 else f'({like})'}"
        )
    return [parts if isinstance(delta, tuple | list) else parts[0]]


def _are_proportional(a: Array, b: Array) -> bool:
    """Return whether the first entries of two arrays of one shape are numbers and multiples of one another."""
    if np.shape(a) != np.shape(b) or np.size(a) < 2 or not is_differentiable(b):
        return False
    one, other = (np.asarray(x, np.float64).ravel()[:PROPORTIONAL_ENTRIES] for x in (a, b))
    if not (np.all(np.isfinite(one) & np.isfinite(other)) and one[0] and other[0]):
        return False
    with np.errstate(over="ignore"):
        return bool(np.all(np.abs(one * other[0] - other * one[0]) <= PROPORTIONAL_ERROR * np.abs(one * other[0])))


def _second_call(result: Result, setting: Setting, call: FirstCall) -> Called | None:
    """Return a second call of the subject, if it is consistent so far; ``None`` if it raised, or no time is left."""
    if any(f.quantity == CALL for f in result.findings):
        return None
    try:
        require_time()
        announce("comparing two calls")
        called = second_call(setting, call)
        return called if called and few_calls_agree(setting, call) else None
    except OutOfTime:
        return None


def _further_calls(results: Sequence[Result], setting: Setting, memory: Memory) -> list[Result]:
    """Return the result of the subject's comparison with itself; none if it raised in the calls before."""
    # A subject that raised would raise again, and be refused twice for one defect.
    if any(f.quantity == CALL for result in results for f in result.findings):
        return []
    try:
        require_time()
        announce("comparing it with itself in further calls")
        is_right = not any(result.refuses for result in results)
        return [_try_subject(lambda: _self_consistency(setting, memory, is_right), "a second call", setting)]
    except OutOfTime:
        note("not compared with itself in further calls, out of time")
        return []


def _self_consistency(setting: Setting, memory: Memory, is_right: bool) -> Result:
    """Judge what no comparison of values with an oracle shows: writes into arguments, and results that change.

    Args:
        setting: the subject and the point.
        memory: the answers to all calls so far.
        is_right: whether the subject agrees with its oracles; then one of the few calls gave another answer.
    """
    subject, primals, delta = setting.subject, setting.primals, setting.delta
    findings, arrays = check_mutation(subject, primals, delta)
    tolerance = self_tolerance_at(subject, setting.oracles, primals, delta, setting.numerics)
    findings += check_repeatability(on_copies(subject), primals, delta, tolerance)
    notes = notes_of_aliasing(arrays)
    # What changes from call to call cannot be compared in another layout, and nothing more need be said of it.
    if not any(f.refuses for f in findings):
        part = part_of(setting)
        of_layouts, further = check_layouts(part)
        of_layouts += check_shared(part)
        notes += further
        if is_right and not any(f.refuses for f in of_layouts):
            memory.repeat(subject)  # it may have been wrong once
        findings += contradiction_findings(memory, subject, setting.oracles, setting.numerics) or of_layouts
    refused = tuple(f for f in findings if f.refuses)
    return Result(subject.name, "check", refused, setting=setting, notes=tuple(notes))
