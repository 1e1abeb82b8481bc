"""The properties that a search tests: what a subject must keep, against oracles and against itself.

    property(case, point, oracles) -> Result, or None if it does not apply to the case

Each property looks at one case at one point and knows nothing of the layer behind it. `primal_agrees` and
`cotangents_agree` compare the subject with the oracles; `adjoint_of_own_primal` compares its pullback with finite
differences of its own primal; the others compare the subject with itself, exactly or within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.constants import (
    FAR_OFF_IN_FLOAT16,
    FIRST_SAMPLES,
    LARGEST_IN_FLOAT16,
    MORE_SAMPLES,
    REFERENCE_ERRORS,
)
from oracles.decision.judge import cotangents_like, judge
from oracles.finite_differences import directional_derivative, finite_difference, remembering
from oracles.forward_mode import forward_mode, has_forward_mode
from oracles.invariance import BATCH, CHUNK, DETERMINISTIC, invariance_result
from oracles.layouts import check_shared, contiguous, expanded, repeated_rows
from oracles.numerics import unit_roundoff
from oracles.options import HALF_NAMES
from oracles.registry import Case, Entry
from oracles.rule import (
    Array,
    Cotangents,
    Output,
    Primals,
    Rule,
    as_tuple,
    is_differentiable,
    is_real,
    map_delta,
    one_or_tuple,
    with_dtype,
)
from oracles.second_order import (
    SecondOrder,
    has_second_order,
    hessian_findings,
    of_twice_differentiable,
    second_order,
    with_zeros,
)
from oracles.self_consistency import (
    Tolerance,
    check_aliasing,
    check_mutation,
    check_repeatability,
    compare_values,
    exact_finding,
    self_tolerance_at,
)
from oracles.strategies import Point, laid_out
from oracles.tolerance import named_outputs, tolerance_at, values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import Evidence, Finding, Result, Setting, Verdict

Property: TypeAlias = Callable[[Case, Point, Sequence[Rule]], Result | None]

# The quantity that `adjoint_of_own_primal` reports on.
ALONG = "⟨cotangents, v⟩"
# The smallest subnormal number of float64: what underflows in one product is at most this.
UNDERFLOW = 2.0**-1074
# The memory layouts, besides the contiguous one, in which `layout_independent` evaluates.
OTHER_LAYOUTS = ("F", "strided", "reversed", "read-only", "offset")
# Cotangents of which all entries, or all rows, are the same memory; their values differ from those of the point.
REPEATED = (expanded, repeated_rows)


def primal_agrees(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """The output is the one that every oracle computes."""
    outputs = named_outputs(as_tuple(point.delta), {})
    return judge(
        case.subject,
        point.primals,
        point.delta,
        oracles,
        numerics=case.numerics,
        kinks=case.kinks,
        only=outputs,
        property_name="primal_agrees",
    )


def cotangents_agree(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Every cotangent is the one that every oracle derives."""
    return judge(
        case.subject,
        point.primals,
        point.delta,
        oracles,
        numerics=case.numerics,
        kinks=case.kinks,
        only=point.primals,
        property_name="cotangents_agree",
    )


def adjoint_of_own_primal(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """⟨Jᵀ delta, v⟩ = ⟨delta, J v⟩ along random v, with J v from finite differences of the subject's own primal."""
    if point.dtype in HALF_NAMES:
        return None  # code for 16 bits computes in float32 whatever it is fed with, and has no digits to difference
    # In float64, whatever dtype is searched: finite differences need its digits.
    wide = with_dtype(dict(point.primals), np.float64)
    delta = with_dtype(point.delta, np.float64)
    cotangents = case.subject(**wide)[1](delta)
    if not _are_real(cotangents):
        return None
    estimator = tolerance_at(oracles, wide, delta, "float64", fallback=case.subject)
    findings = []
    for v in _directions({n: wide[n] for n in cotangents}):
        slope, radius = directional_derivative(case.subject, wide, delta, v)
        # Entries that v does not move are left out: they, and their tolerances, may be infinite.
        terms = [float(t) for n, g in cotangents.items() for t in np.asarray(g)[v[n] != 0] * v[n][v[n] != 0]]
        for samples in (FIRST_SAMPLES, MORE_SAMPLES):
            tolerances = estimator.estimate(samples)
            bound = radius + sum(float(np.sum(tolerances[n][d != 0] * np.abs(d[d != 0]))) for n, d in v.items())
            bound += len(terms) * UNDERFLOW
            ratio = _ratio(abs(sum(terms) - slope), bound)
            if ratio <= 1:
                break
        findings.append(_finding_along(terms, slope, bound, ratio))
    return Result(case.subject.name, "adjoint_of_own_primal", tuple(findings))


def _directions(primals: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Two directions: one relative to every entry, which crosses no kink at 0, and one along the zeros alone.

    Neither moves an infinite entry.
    """
    rng = np.random.default_rng(0)
    sizes = {n: np.where(np.isfinite(a), np.abs(a), 0.0) for n, a in primals.items()}
    relative = {n: rng.choice((-1.0, 1.0), a.shape) * a for n, a in sizes.items()}
    zeros = {
        n: rng.choice((-1.0, 1.0), a.shape) * (a == 0) * (float(np.max(sizes[n], initial=0.0)) or 1.0)
        for n, a in primals.items()
    }
    return [v for v in (relative, zeros) if any(np.any(d) for d in v.values())]


def _finding_along(terms: Sequence[float], slope: float, bound: float, ratio: float) -> Finding:
    known = np.isfinite(slope) and np.isfinite(bound)
    if ratio > 1 and known:
        evidence = Evidence((), sum(terms), {"finite difference": slope}, bound, refused=(1, 1))
        return Finding(ALONG, "finite difference", Verdict.WRONG, True, ratio, evidence=evidence)
    size = sum(map(abs, terms))
    if not known:  # there is no derivative, a kink or the end of the domain
        verdict = Verdict.VACUOUS if size else Verdict.AGREES
        return Finding(ALONG, "finite difference", verdict, detects_above=float("inf") if size else 0.0)
    verdict = Verdict.VACUOUS if size and bound >= size else Verdict.AGREES
    return Finding(ALONG, "finite difference", verdict, ratio=ratio, detects_above=bound / size if size else 0.0)


def shapes_and_dtypes_exact(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """A cotangent has the shape and dtype of its primal, the output the dtype of the primals; in float16 too.

    A search in half precision asks for its own dtype alone, and compares the values in `cotangents_agree`.
    """
    findings = []
    # float16 shows a constant or an array of a fixed dtype inside, which the search's own dtype may hide.
    alone = point.dtype in HALF_NAMES or case.trees.hold_complex  # there are no complex numbers of 16 bits
    dtypes = (point.dtype,) if alone else (point.dtype, "float16")
    for dtype in dtypes:
        with np.errstate(all="ignore"):
            primals = {n: a.astype(dtype) if is_differentiable(a) else a for n, a in point.primals.items()}
            y, pullback = case.subject(**primals)
            cotangents = pullback(with_dtype(point.delta, dtype))
        outputs = named_outputs(as_tuple(y), {})
        for name, part in outputs.items():
            actual = np.asarray(part).dtype.name
            findings.append(exact_finding(name, actual == dtype, f"dtype {actual} where the primals are {dtype}"))
        for name, g in cotangents.items():
            fits = isinstance(g, np.ndarray) and g.shape == primals[name].shape and g.dtype == dtype
            actual = f"{g.dtype.name}{g.shape}" if isinstance(g, np.ndarray) else type(g).__name__
            findings.append(exact_finding(name, fits, f"{actual}, expected {dtype}{primals[name].shape}"))
    if len(dtypes) > 1 and not any(f.refuses for f in findings):
        findings += _values_in_float16(case, point, oracles, {**outputs, **cotangents})  # of the last dtype, float16
    return Result(case.subject.name, "shapes_and_dtypes_exact", tuple(findings))


def _values_in_float16(case: Case, point: Point, oracles: Sequence[Rule], actual: Cotangents) -> list[Finding]:
    """Return the findings on the values in float16, which no other property compares: those of a wrong formula.

    ``actual`` are the subject's outputs and cotangents there.

    Points of large magnitudes are left out: what overflows in float16 says nothing of the formula.
    """
    with np.errstate(over="ignore"):
        primals, delta = with_dtype(dict(point.primals), np.float16), with_dtype(point.delta, np.float16)
    arrays = [a for a in (*primals.values(), *as_tuple(delta)) if is_differentiable(a)]
    if any(np.max(np.abs(a), initial=0.0) > LARGEST_IN_FLOAT16 for a in arrays):
        return []
    with np.errstate(all="ignore"):
        own = _errors_in_dtype(oracles, primals, delta)
        if own is not None and _as_accurate(actual, *own):
            return []  # most points: a judgement costs many evaluations
        result = judge(case.subject, primals, delta, oracles, kinks=case.kinks, property_name="shapes_and_dtypes_exact")
    errors = {} if own is None else {n: float(np.max(e, initial=0.0)) for n, e in own[1].items()}
    refused = [f for f in result.findings if f.refuses and not _explained_by(f, errors)]
    if not refused:
        return []
    with np.errstate(all="ignore"):  # a formula that is wrong in any dtype is not wrong because of this one
        finer, finer_delta = with_dtype(primals, point.dtype), with_dtype(delta, point.dtype)
        anywhere = {f.quantity for f in judge(case.subject, finer, finer_delta, oracles).findings if f.refuses}
    return [_of_float16(f, point.dtype if f.quantity in anywhere else "") for f in refused]


def _errors_in_dtype(oracles: Sequence[Rule], primals: Primals, delta: Output) -> tuple[Cotangents, Cotangents] | None:
    """Return the values of a reference in float64, and how far off it is in the dtype of the primals.

    ``None`` if none runs in that dtype, or if there is none.
    """
    for reference in reversed([oracle for oracle in oracles if oracle.reference]):  # JAX, the first, would trace again
        native = attempt(partial(values_of, reference, primals, delta))
        if not isinstance(native, Raised):
            wide = values_of(reference, with_dtype(primals, np.float64), with_dtype(delta, np.float64))
            return wide, {n: np.abs(np.asarray(native[n], np.float64) - wide[n]) for n in wide}
    return None


def _as_accurate(actual: Cotangents, expected: Cotangents, errors: Cotangents) -> bool:
    """Return whether the subject errs as little in float16 as a reference does there, in every entry."""
    u = unit_roundoff(np.float16)
    bounds = {n: REFERENCE_ERRORS * (errors[n] + u * np.abs(expected[n])) for n in actual if n in expected}
    return all(bool(np.all(np.abs(np.asarray(actual[n], np.float64) - expected[n]) <= b)) for n, b in bounds.items())


def _explained_by(finding: Finding, errors: Mapping[str, float]) -> bool:
    """Return whether lost digits are no more than those that a reference loses in the same dtype.

    A long run of small steps stagnates in float16, whoever computes it.
    """
    value, expected = finding.evidence.subject, next(iter(finding.evidence.oracles.values()), None)
    if finding.verdict is not Verdict.UNSTABLE or value is None or expected is None:
        return False
    return abs(value - expected) <= REFERENCE_ERRORS * errors.get(finding.quantity, 0.0)


def _of_float16(finding: Finding, elsewhere: str) -> Finding:
    """Return WRONG where a value in float16 is far off, of which no rounding is the reason.

    A formula that loses digits stays UNSTABLE. ``elsewhere`` is the finer dtype in which the array is refused, too.
    """
    value, expected = finding.evidence.subject, next(iter(finding.evidence.oracles.values()), 0.0)
    if value is None or abs(value - expected) <= FAR_OFF_IN_FLOAT16 * abs(expected):
        return finding
    reason = "in float16 it gives another value, which no rounding explains"
    if elsewhere:
        reason = f"it gives another value in {elsewhere}, and so in float16: the formula is wrong in every dtype"
    return replace(finding, verdict=Verdict.WRONG, evidence=replace(finding.evidence, reason=reason))


def additive_in_delta(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """pullback(2δ − ε) = 2 pullback(δ) − pullback(ε) within rounding, and a zero δ gives exact zeros.

    An entry that is NaN for the other deltas too is left to the oracles.
    """
    rng = np.random.default_rng(1)
    delta = point.delta
    other = _map(lambda d: np.asarray(rng.standard_normal(d.shape)).astype(d.dtype), delta)
    # A factor 2 is exact, so only the sum rounds.
    mixed = _map(lambda d, e: (2 * d - e).astype(d.dtype), delta, other)
    _, pullback = case.subject(**point.primals)
    of_delta, of_other, of_mixed = (dict(pullback(d)) for d in (delta, other, mixed))
    if not _are_real(of_delta):
        return None
    tolerances = [_self_tolerance(case, point, oracles, d) for d in (delta, other, mixed)]

    def tolerance(n: str, samples: int) -> Array:
        at_delta, at_other, at_mixed = (each(n, samples) for each in tolerances)
        return np.asarray(2 * at_delta + at_other + at_mixed)

    # In half precision a factor that has overflowed makes NaN of 0, and an infinity of anything else.
    unknown = _is_not_finite if point.dtype in HALF_NAMES else np.isnan
    of_zero = pullback(_map(lambda d: np.zeros_like(d, order="C"), delta))
    findings = []
    for n in of_delta:
        combined = 2 * np.asarray(of_delta[n], np.float64) - np.asarray(of_other[n], np.float64)
        combined = _unless_infinite(combined, of_mixed[n], of_delta[n], of_other[n])
        reason = "pullback(2δ − ε) against 2 pullback(δ) − pullback(ε)"
        findings.append(compare_values(n, of_mixed[n], combined, tolerance, reason))
        zero = (np.asarray(of_zero[n]) == 0) | (np.isnan(of_zero[n]) & unknown(of_other[n]) & unknown(of_delta[n]))
        findings.append(exact_finding(n, bool(zero.all()), "a cotangent of zeros does not pull back to zeros"))
    return Result(case.subject.name, "additive_in_delta", tuple(findings))


def layout_independent(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Fortran order, strides, an offset, stride 0, read-only and shared memory give the same values, of delta too."""
    plain = {n: np.ascontiguousarray(a).reshape(a.shape) for n, a in point.primals.items()}
    delta = _map(lambda d: np.ascontiguousarray(d).reshape(d.shape), point.delta)
    expected = values_of(case.subject, plain, delta)
    tolerance = _self_tolerance(case, point, oracles, point.delta)
    findings = []
    for layout in OTHER_LAYOUTS:
        laid_delta = _map(lambda d, layout=layout: laid_out(d, layout), delta)
        actual = values_of(case.subject, {n: laid_out(a, layout) for n, a in plain.items()}, laid_delta)
        reason = f"{layout} memory against contiguous"
        findings += [compare_values(n, actual[n], expected[n], tolerance, reason) for n in expected]
    for repeated in REPEATED:
        constant = map_delta(repeated, delta)
        dense = map_delta(contiguous, constant)
        tolerance = _self_tolerance(case, point, oracles, dense)
        _, pullback = case.subject(**plain)
        of_dense, of_repeated = pullback(dense), pullback(constant)
        reason = f"a cotangent with strides {np.asarray(as_tuple(constant)[0]).strides} against contiguous"
        findings += [compare_values(n, of_repeated[n], of_dense[n], tolerance, reason) for n in of_dense]
    findings += check_shared(Setting(case.subject, tuple(oracles), plain, delta, case.numerics_at(plain)))
    return Result(case.subject.name, "layout_independent", tuple(findings))


def nothing_mutated_or_aliased(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Neither forward nor backward writes into an argument, and no returned array shares memory with another."""
    findings, arrays = check_mutation(case.subject, point.primals, point.delta)
    return Result(case.subject.name, "nothing_mutated_or_aliased", (*findings, *check_aliasing(arrays)))


def same_every_time(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Evaluated twice, and its pullback called twice, with another forward and backward between: the same bits."""
    tolerance = _self_tolerance(case, point, oracles, point.delta)
    findings = check_repeatability(case.subject, point.primals, point.delta, tolerance)
    return Result(case.subject.name, "same_every_time", tuple(findings))


def batch_is_a_sum(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Rows are independent: two halves give the rows of the whole and sum to its other cotangents; no rows, zeros."""
    if not case.batched:
        return None
    outputs, pullback = case.subject(**point.primals)
    whole = named_outputs(as_tuple(outputs), dict(pullback(point.delta)))
    if not _are_real(whole):
        return None
    per_row = {*case.batched}
    if np.ndim(as_tuple(outputs)[0]):
        per_row |= {*named_outputs(as_tuple(outputs), {})}
    middle = len(point.primals[case.batched[0]]) // 2
    parts: Cotangents = {}
    own: dict[str, list[Array]] = {}
    # No rows at all must add nothing: an empty batch is a common special case.
    for rows in (slice(0, middle), slice(middle, None), slice(0, 0)):
        primals = {n: a[rows] if n in case.batched else a for n, a in point.primals.items()}
        delta = _map(lambda d, rows=rows: d[rows] if d.ndim else d, point.delta)
        for n, a in values_of(case.subject, primals, delta).items():
            part = np.asarray(a, np.float64)
            own.setdefault(n, []).append(part)
            if n not in parts:
                parts[n] = part
            else:
                parts[n] = np.concatenate([parts[n], part]) if n in per_row else parts[n] + part
    summed = [n for n in parts if n not in per_row and np.shape(whole[n]) == np.shape(parts[n])]
    parts |= {n: _unless_infinite(parts[n], whole[n], *own[n]) for n in summed}
    tolerance = _self_tolerance(case, point, oracles, point.delta)
    reason = f"the whole batch against rows [:{middle}] and [{middle}:] and none"
    findings = tuple(compare_values(n, whole[n], parts[n], tolerance, reason) for n in whole)
    return Result(case.subject.name, "batch_is_a_sum", findings)


def batch_invariant(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """On request: a row has the same bits alone, in another order, in a larger batch, and above rows of zeros."""
    return _invariance(BATCH, case, point, oracles)


def chunk_invariant(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """On request: a row has the same bits in the whole batch and in a chunk of it."""
    return _invariance(CHUNK, case, point, oracles)


def deterministic(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """On request: repeated calls give the same bits, also where a library may add in another order each time."""
    return _invariance(DETERMINISTIC, case, point, oracles)


def _invariance(name: str, case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    if name != DETERMINISTIC and not case.batched:
        return None
    setting = Setting(case.subject, tuple(oracles), point.primals, point.delta, case.numerics_at(point.primals))
    return invariance_result(name, setting, case.batched, case.blocks)


def second_order_agrees(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """On request: the derivative of the pullback is the one that every oracle derives."""
    own = has_second_order(case.subject)
    references = [oracle for oracle in oracles if oracle.reference is not None]
    if not (own or references) or (not own and point.dtype in HALF_NAMES):
        return None  # finite differences of a pullback need a reference, and more digits
    claimed = _claimed(case, point)
    if not claimed:
        return None
    second = second_order(case.subject, point.primals, point.delta, references, claimed)
    like = tuple(point.primals[n] for n in claimed)
    (w,) = cotangents_like(one_or_tuple(like), np.random.default_rng(3), 1)
    own_differences = [] if references else [finite_difference(remembering(second.subject))]

    def judged(second: SecondOrder) -> Result:
        # The pullback of a kink is a step, which has no derivative: conventions are those of the first order.
        return judge(
            second.subject,
            second.primals,
            w if own else with_dtype(w, np.float64),
            second.oracles or own_differences,
            numerics=case.numerics,
            kinks="any",
            only=second.primals,
            property_name="second_order_agrees",
        )

    return with_zeros(of_twice_differentiable(second, judged))


def hessian_is_symmetric(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """On request: the derivative of the pullback by the primals is symmetric, as that of a gradient is."""
    if point.dtype in HALF_NAMES or not (claimed := _claimed(case, point)):
        return None
    findings = hessian_findings(case.subject, point.primals, point.delta, claimed)
    return Result(case.subject.name, "hessian_is_symmetric", tuple(findings))


def tangents_agree(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """On request: the forward mode gives what every oracle gives, and the adjoint of the pullback."""
    if not has_forward_mode(case.subject):
        return None
    references = [oracle for oracle in oracles if oracle.reference is not None]
    rng = np.random.default_rng(4)
    both = bool(_claimed(case, point))
    forward = forward_mode(case.subject, point.primals, references, rng, both=both)
    y = forward.subject(**forward.primals)[0]
    (delta,) = cotangents_like(y, rng, 1)
    result = judge(
        forward.subject,
        forward.primals,
        delta,
        forward.oracles,
        numerics=case.numerics,
        kinks=case.kinks,
        property_name="tangents_agree",
    )
    return replace(result, not_claimed=())


def _claimed(case: Case, point: Point) -> list[str]:
    """Return the floating primals whose cotangents the subject returns."""
    cotangents = case.subject(**point.primals)[1](point.delta)
    return [n for n in cotangents if is_differentiable(point.primals[n])]


PROPERTIES: Mapping[str, Property] = {
    each.__name__: each
    for each in (
        primal_agrees,
        cotangents_agree,
        adjoint_of_own_primal,
        shapes_and_dtypes_exact,
        additive_in_delta,
        layout_independent,
        nothing_mutated_or_aliased,
        same_every_time,
        batch_is_a_sum,
    )
}
# The properties that are judged on request alone, and all.
REQUESTED: Mapping[str, Property] = {
    each.__name__: each
    for each in (
        batch_invariant,
        chunk_invariant,
        deterministic,
        second_order_agrees,
        hessian_is_symmetric,
        tangents_agree,
    )
}
EVERY_PROPERTY: Mapping[str, Property] = {**PROPERTIES, **REQUESTED}
# Why one of these may judge nothing, and what to write.
UNAVAILABLE: Mapping[str, str] = {
    "second_order_agrees": "no subject claims a cotangent and has a reference, in a dtype of at least 32 bits.\n"
    "Fix:    oracles.Case(subject, primals, torch=reference)",
    "hessian_is_symmetric": "no subject claims a cotangent, in a dtype of at least 32 bits.\nFix:    order=1",
    "tangents_agree": "no subject has a forward mode.\n"
    "Fix:    oracles.manual(forward, backward, jvp=jvp)      # jvp(primals, tangents) -> (y, tangent of y)",
}
# The properties that compare the subject with oracles, in the share of inconclusive points.
ORACLE_PROPERTIES = ("primal_agrees", "cotangents_agree")
# The properties of a subject without a pullback, such as an optimizer's step.
FORWARD_PROPERTIES = (
    "primal_agrees",
    "shapes_and_dtypes_exact",
    "layout_independent",
    "nothing_mutated_or_aliased",
    "same_every_time",
)


def properties_of(entry: Entry) -> tuple[str, ...]:
    """Return the names of the properties that apply to a registered layer."""
    return tuple(PROPERTIES) if entry.pullback else FORWARD_PROPERTIES


def _self_tolerance(case: Case, point: Point, oracles: Sequence[Rule], delta: Output) -> Tolerance:
    return self_tolerance_at(case.subject, oracles, point.primals, delta, case.numerics_at(point.primals))


def _are_real(values: Cotangents) -> bool:
    """Return whether values can be computed with; what is not real is refused for its dtype by other properties."""
    return all(map(is_real, values.values()))


def _is_not_finite(array: Array) -> Array:
    return np.asarray(~np.isfinite(array))


def _unless_infinite(combined: Array, actual: Array, *terms: Array) -> Array:
    """Return what terms combine to; where one of them is infinite, and so says nothing of the others, ``actual``."""
    return np.where(np.any([np.isinf(np.asarray(t, np.float64)) for t in terms], axis=0), actual, combined)


def _ratio(error: float, bound: float) -> float:
    if np.isnan(error):
        return float("inf")
    return error / bound if bound > 0 else (0.0 if error == 0 else float("inf"))


def _map(f: Callable[..., Array], *deltas: Output) -> Any:
    """Apply a function to the arrays of outputs that have the same structure."""
    if isinstance(deltas[0], tuple):
        return tuple(f(*parts) for parts in zip(*deltas, strict=True))
    return f(*(np.asarray(delta) for delta in deltas))
