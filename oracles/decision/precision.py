"""Distinguish a wrong formula from lost digits: rounding errors shrink with the precision, a formula's do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from oracles.constants import (
    AS_MANY_DIGITS,
    COARSE_ERROR,
    FINER_SHRINKAGE,
    LEAST_BEND,
    ONE_FACTOR_SPREAD,
    PRECISION_SHRINKAGE,
    SHRINKAGE_OF_ROUNDING,
    SPREAD_ENTRIES,
    SPREAD_SHARE,
    STEP_IN_ROUNDINGS,
)
from oracles.decision.comparison import (
    Comparison,
    enclosure_at,
    half_of_the_digits,
    largest_number,
    rounding_bound,
    value_and_radius,
)
from oracles.exact.ball_arithmetic import in_exact_arithmetic
from oracles.numerics import is_coarser, precision_of, smallest_normal, unit_roundoff
from oracles.rule import (
    Array,
    Enclosure,
    NotPerturbable,
    Output,
    Primals,
    Rule,
    Runtime,
    as_tuple,
    is_differentiable,
    map_delta,
    with_dtype,
)
from oracles.tolerance import values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import EXACT, Evidence, Finding, Setting, Verdict

COARSER = ("float32", "bfloat16", "float16")
# A framework raises these if it does not compute in the subject's precision, or not at all.
FRAMEWORK_ERRORS = (TypeError, ValueError, RuntimeError, KeyError)


def lost_digits(comparison: Comparison, oracle: str) -> Finding | None:
    """Return a finding where a certified enclosure shows lost digits, though every entry is within its tolerance.

    The tolerance comes from the reference, which may lose the digits itself. The finding refuses the subject, unless
    the frameworks' own backwards lose as many. If there is no framework to ask, it refuses only if the largest entry
    loses more than half of its digits.
    """
    exact, name, setting = comparison.answers[oracle], comparison.name, comparison.setting
    bound = rounding_bound(exact)
    if bound is None or not isinstance(exact, Enclosure) or not comparison.is_cotangent:
        return None
    error, size = np.abs(comparison.value - exact.mid), np.abs(exact.mid)
    half = half_of_the_digits(setting.precision)
    lost = (error > bound) & (error > half * size) & np.isfinite(comparison.tolerance)
    lost &= (comparison.value != np.copysign(np.inf, exact.mid)) | (size <= largest_number(comparison.actual.dtype))
    if np.any(lost):
        # At a kink the subject is on another side than the enclosure, which loses no digits.
        lost &= ~comparison.estimator.jumping(name)
    if not np.any(lost):
        return None
    index = tuple(int(i) for i in np.argwhere(lost)[0])
    frameworks = [o for o in setting.oracles if o.runtime is not Runtime.NUMPY]
    words, all_lose = frameworks_lose(name, error, exact.mid, frameworks, setting)
    minor = not frameworks and not np.any(error > half * np.max(size))
    evidence = Evidence(
        index,
        float(comparison.value[index]),
        comparison.values_at(index),
        float(bound[index]),
        enclosure_at(exact, index),
        (int(np.count_nonzero(lost)), lost.size),
        f"right as a formula, but it loses digits that need not be lost{words}",
    )
    # A Python float overflows without a warning.
    ratio = float(error[index]) / float(bound[index]) if bound[index] else np.inf
    return Finding(name, oracle, Verdict.UNSTABLE, not (all_lose or minor), ratio, evidence=evidence)


def frameworks_lose(
    name: str, error: Array, exact: Array, frameworks: Sequence[Rule], setting: Setting
) -> tuple[str, bool]:
    """Return whether every framework's own backward, in the subject's precision, loses as many digits; in words first.

    Args:
        name: the primal whose cotangent is compared.
        error: the subject's error in each entry.
        exact: the value that errors are measured from.
        frameworks: the oracles to ask; those that do not run in the subject's precision are left out.
        setting: the point.
    """
    losses = []
    for oracle in frameworks:
        try:
            _, pullback = oracle(**setting.primals)
            value = np.asarray(dict(pullback(setting.delta))[name], np.float64)
        except FRAMEWORK_ERRORS:
            continue
        # NaN, as of 0 · ∞ after an overflow, errs as much as any number.
        worst, subjects = (np.max(np.nan_to_num(e, nan=np.inf), initial=0.0) for e in (np.abs(value - exact), error))
        losses.append((oracle.name, bool(worst >= subjects * AS_MANY_DIGITS)))
    words = ", ".join(f"{o}'s own backward {'loses as much' if loses else 'does not'}" for o, loses in losses)
    return (f"; {words}" if words else ""), bool(losses) and all(loses for _, loses in losses)


def keeps_error_in(comparison: Comparison, precision: str) -> bool:
    """Return whether the subject is off by as much in a refused entry when it is fed with a finer precision."""
    setting = comparison.setting
    primals, delta = (with_dtype(tree, precision) for tree in (dict(setting.primals), setting.delta))
    value = attempt(lambda: np.asarray(values_of(setting.subject, primals, delta)[comparison.name], np.float64))
    if isinstance(value, Raised) or value.shape != comparison.refused.shape:
        return False
    error, own = np.abs(comparison.value - comparison.expected), np.abs(value - comparison.expected)
    return bool(np.any((own >= AS_MANY_DIGITS * error)[comparison.refused]))


class _Watched(np.ndarray[Any, Any]):
    """An array that counts the floating results that are computed from it, by their dtype."""

    counts: ClassVar[Counter[str]] = Counter()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        def plain(x: Any) -> Any:
            return x.view(np.ndarray) if isinstance(x, _Watched) else x

        if out is not None:
            options["out"] = tuple(map(plain, out))
        result = getattr(ufunc, method)(*map(plain, inputs), **options)
        if not isinstance(result, np.ndarray | np.generic):
            return result
        result = np.asarray(result)
        # NumPy's matrix products of bfloat16 are float32, whoever calls them.
        if ufunc.signature is None and is_differentiable(result):
            _Watched.counts[result.dtype.name] += 1
        return result.view(_Watched)


def computes_finer(setting: Setting) -> bool:
    """Return whether most of what the pullback computes is finer than its inputs; False where NumPy does not see it."""

    def watched(tree: Any) -> Any:
        if isinstance(tree, tuple):
            return tuple(map(watched, tree))
        return np.array(tree).view(_Watched) if is_differentiable(tree) else tree

    if setting.subject.runtime is not Runtime.NUMPY:
        return False
    primals = {n: watched(a) for n, a in setting.primals.items()}
    evaluated = attempt(lambda: setting.subject.evaluate(**primals))
    _Watched.counts.clear()
    if not isinstance(evaluated, Raised):
        attempt(lambda: evaluated[1](watched(setting.delta)))
    finer = {name: is_coarser(setting.precision, name) for name in _Watched.counts}
    return 2 * sum(n for name, n in _Watched.counts.items() if finer[name]) > _Watched.counts.total()


def references_err_as_much(comparison: Comparison) -> str:
    """Return which references err as much in the dtypes of the point, in every refused entry; "" if one does not.

    NaN errs as much as any number, and an infinity as much as itself and as any number. References that do not run in
    those dtypes are left out.
    """
    setting, name = comparison.setting, comparison.name
    names = []
    for reference in comparison.references:
        expected = value_and_radius(comparison.answers[reference.name])[0]
        value = _in_dtype(replace(setting, subject=reference), name, None)
        if value is None or value.shape != expected.shape:
            continue
        with np.errstate(invalid="ignore"):
            error, own = np.abs(comparison.value - expected), np.abs(np.asarray(value, np.float64) - expected)
            opposite = np.isinf(value) & np.isinf(comparison.value) & (value != comparison.value)
            as_much = (~np.isfinite(own) | (own >= AS_MANY_DIGITS * error)) & ~opposite
        if not np.all(as_much[comparison.refused]):
            return ""
        names.append(reference.name)
    return " and ".join(names)


def right_up_to(actual: Array, expected: Array, tolerance: Array, precision: str) -> str:
    """Return the coarser precision in which the whole array is right; "" if there is none.

    The errors must look like rounding: within the tolerance of that precision, in most entries rather than in a few,
    and not one factor. The values themselves must be representable there, or, for float32, the typical error must have
    the size of its rounding.
    """
    error = np.abs(actual - expected)
    off = error > tolerance
    if not np.any(off):
        return ""
    # An array that is right up to float32 is right up to the others as well, and most of bfloat16 are of float16.
    for coarse in COARSER:
        scale = unit_roundoff(coarse) / unit_roundoff(precision)
        if scale <= 1 or not np.all(error <= scale * tolerance):
            continue
        spread_out = np.count_nonzero(off) >= SPREAD_SHARE * np.count_nonzero(expected)
        with np.errstate(over="ignore"):
            representable = np.array_equal(actual, actual.astype(coarse).astype(np.float64))
        typical = COARSE_ERROR * unit_roundoff(coarse) * np.median(np.abs(expected[off]))
        sized = coarse == "float32" and np.count_nonzero(off) >= SPREAD_ENTRIES and np.median(error[off]) >= typical
        if spread_out and (representable or sized) and not _one_factor(actual, expected):
            return coarse
    return ""


def _one_factor(actual: Array, expected: Array) -> bool:
    """Return whether an array is one constant times another: a formula's error, not rounding's."""
    nonzero = expected != 0
    factors = actual[nonzero] / expected[nonzero] - 1
    return factors.size > 1 and bool(np.ptp(factors) < ONE_FACTOR_SPREAD * np.max(np.abs(factors)))


def is_rounding(comparison: Comparison, precision: str) -> bool:
    """Return whether the errors are drawn anew when the inputs move by a few roundings of a precision.

    The error of a formula is a smooth function of the input, so it is straight along so short a line; three rounding
    errors on it are independent.
    """
    setting = comparison.setting
    reference = next(iter(comparison.references), None)
    if reference is None:
        return False

    def error_at(k: int) -> Array:
        # The delta too: the gradient of a table of vectors, say, depends on nothing else.
        return _error_at(comparison, reference, *point_on_a_line(setting.primals, setting.delta, k, precision))

    errors = [attempt(partial(error_at, k)) for k in range(3)]
    values = [e for e in errors if not isinstance(e, Raised)]
    if len(values) < len(errors):
        return False
    bend = np.linalg.norm(values[2] - 2 * values[1] + values[0])
    return bool(bend > LEAST_BEND * max(np.linalg.norm(e) for e in values))


def leaves_range(comparison: Comparison) -> bool:
    """Return whether numbers that float16 cannot hold cause the errors of code that is fed with it.

    bfloat16 has fewer digits and the exponents of float32. So an overflow or an underflow goes when the subject is fed
    with it, and what rounding causes grows. Code that casts to float16 inside overflows all the same; NumPy says so.
    """
    setting = comparison.setting
    reference = next(iter(comparison.references), None)
    if reference is None or precision_of(setting.primals) != "float16":
        return False
    overflows: list[str] = []
    with np.errstate(all="ignore", over="call", call=lambda kind, flag: overflows.append(kind)):
        attempt(partial(values_of, setting.subject, setting.primals, setting.delta))
    if overflows:
        return True

    def share_of_error() -> float:
        primals, delta = with_dtype(dict(setting.primals), "bfloat16"), with_dtype(setting.delta, "bfloat16")
        error = np.nan_to_num(np.abs(comparison.value - comparison.expected), nan=np.inf)
        return float(np.max((np.abs(_error_at(comparison, reference, primals, delta)) / error)[comparison.refused]))

    with np.errstate(all="ignore"):
        share = attempt(share_of_error)
    return not isinstance(share, Raised) and share < AS_MANY_DIGITS


def _error_at(comparison: Comparison, reference: Rule, primals: Primals, delta: Output) -> Array:
    """Return the error of the subject at another point, against a reference there in float64."""
    name, wide, wide_delta = comparison.name, with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
    actual = values_of(comparison.setting.subject, primals, delta)[name]
    return np.asarray(np.asarray(actual, np.float64) - values_of(reference, wide, wide_delta)[name])


def point_on_a_line(primals: Primals, delta: Output, k: float, precision: str) -> tuple[Primals, Output]:
    """Return a point and a delta k steps away, along one line for all k; a step is a few roundings of a precision."""
    rng = np.random.default_rng(1)  # the same direction for each k
    step = STEP_IN_ROUNDINGS * k * unit_roundoff(precision)

    def move(array: Array) -> Array:
        a = np.asarray(array)
        return np.asarray(a * (1 + step * rng.uniform(-1, 1, a.shape))).astype(a.dtype) if is_differentiable(a) else a

    moved = {n: move(a) for n, a in primals.items()}
    return moved, tuple(map(move, delta)) if isinstance(delta, tuple) else move(delta)


def formula_is_right(comparison: Comparison) -> bool | None:
    """Return whether the refused entries come from the subject's arithmetic, not its formula; ``None`` if unknown.

    Its own forward and pullback run in exact arithmetic, if they run on balls, or else in a finer precision (long
    double has 11 bits more than float64): the error of a formula stays, that of its arithmetic goes. Where there is no
    finer one, the error must be smaller than in float32 by most of 29 bits, since a small error of a formula hides
    behind float32's.
    """
    setting, name, expected, refused = comparison.setting, comparison.name, comparison.expected, comparison.refused
    fed = precision_of({n: a for n, a in setting.primals.items() if is_differentiable(a)})
    # float64 is finer than any other input; for float64 itself only long double is, where the machine has one.
    finer = "longdouble" if fed == "float64" else "float64"
    special, subnormal = _special_entries(setting, refused)
    value = _in_balls(setting, name)
    # Balls have no −0.0 and no subnormal numbers, so they may convict such an entry and not acquit it.
    if value is not None and np.any(special) and _is_right(value, comparison, refused):
        value = None
    # A finer dtype keeps −0.0, but holds a subnormal number as a normal one.
    if value is None and np.any(subnormal) and not _errs_at_normal_numbers(comparison, subnormal):
        return None
    if value is not None:
        return _is_right(value, comparison, refused)
    if np.finfo(finer).eps < unit_roundoff(fed):
        value = _in_dtype(setting, name, finer)
    if value is not None:
        return _is_right(value, comparison, refused) or _shrinks(value, comparison, refused)
    here, coarse = _in_dtype(setting, name, None), _in_dtype(setting, name, "float32")
    if here is None or coarse is None:
        return None
    error, coarse_error = (float(np.max(np.abs(v - expected)[refused], initial=0.0)) for v in (here, coarse))
    return True if error <= coarse_error * PRECISION_SHRINKAGE else None


def _errs_at_normal_numbers(comparison: Comparison, subnormal: Array) -> bool:
    """Return whether the errors of these entries stay where subnormal numbers are replaced by the smallest normal ones.

    Then no flushed number causes them.
    """
    setting = comparison.setting
    reference = next(iter(comparison.references), None)
    if reference is None:
        return False

    def normal(array: Array) -> Array:
        a = np.asarray(array)
        if not is_differentiable(a):
            return a
        least = smallest_normal(a.dtype)
        return np.where((a != 0) & (np.abs(a) < least), np.copysign(least, a), a).astype(a.dtype)

    def stay() -> bool:
        primals = {n: normal(a) for n, a in setting.primals.items()}
        error = np.abs(_error_at(comparison, reference, primals, map_delta(normal, setting.delta)))
        return bool(np.all((error > comparison.tolerance)[subnormal]))

    with np.errstate(all="ignore"):
        return attempt(stay) is True


def _is_right(value: Array, comparison: Comparison, refused: Array) -> bool:
    """Return whether values are right in the refused entries; an infinite tolerance shows nothing."""
    exact = comparison.answers.get(EXACT)
    tolerance = comparison.tolerance if exact is None else comparison.tolerance_of(exact)
    with np.errstate(invalid="ignore"):
        distance = np.where(value == comparison.expected, 0.0, np.abs(value - comparison.expected))
        within = np.isfinite(distance) & np.isfinite(tolerance) & (distance <= tolerance)
        return bool(np.all((within | (distance == 0))[refused]))


def _shrinks(value: Array, comparison: Comparison, refused: Array) -> bool:
    """Return whether the largest error in a refused entry is far smaller in a finer precision: digits were lost.

    Rounding shrinks about as much as the unit roundoff does. What shrinks far more is none, such as memory that was
    never written.
    """
    with np.errstate(invalid="ignore"):
        own, finer = (np.max(np.abs(v - comparison.expected)[refused], initial=0.0) for v in (comparison.value, value))
    least = SHRINKAGE_OF_ROUNDING * unit_roundoff(value.dtype) / unit_roundoff(precision_of(comparison.setting.primals))
    return bool(np.isfinite(own) and own * least <= finer <= own * FINER_SHRINKAGE)


def _special_entries(setting: Setting, refused: Array) -> tuple[Array, Array]:
    """Return the refused entries at which a primal or delta is −0.0 or subnormal, and those where it is subnormal.

    Entries correspond in arrays of the same shape, as those of an elementwise function do.
    """
    special, subnormal = np.zeros(refused.shape, bool), np.zeros(refused.shape, bool)
    for array in (*setting.primals.values(), *as_tuple(setting.delta)):
        a = np.asarray(array)
        if a.shape == refused.shape and is_differentiable(a):
            small = (a != 0) & (np.abs(a) < smallest_normal(a.dtype))
            subnormal |= small & refused
            special |= (small | ((a == 0) & np.signbit(a))) & refused
    return special, subnormal


def _in_balls(setting: Setting, name: str) -> Array | None:
    """Return the subject's own output or cotangent in exact arithmetic; ``None`` if it does not run on balls."""
    try:
        return in_exact_arithmetic(setting.subject, setting.primals, setting.delta)[name]
    except (NotPerturbable, KeyError):
        return None


def _in_dtype(setting: Setting, name: str, dtype: str | None) -> Array | None:
    """Return the subject's own output or cotangent in a dtype; ``None`` if it does not compute in it."""
    primals = with_dtype(dict(setting.primals), dtype) if dtype else setting.primals

    def evaluate() -> Array:
        with np.errstate(all="ignore"):
            delta = with_dtype(setting.delta, dtype) if dtype else setting.delta
            return np.asarray(values_of(setting.subject, primals, delta)[name])

    value = attempt(evaluate)
    return None if isinstance(value, Raised) or (dtype and value.dtype != np.dtype(dtype)) else value
