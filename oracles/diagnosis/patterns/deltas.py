"""Patterns of whole calls and of the incoming delta.

A call may return nothing, zero, or the derivative of another function. Delta may be ignored, changed before use, used
in part, or used without other indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.constants import APPROXIMATED, BLOCK_SIZES, CONFIDENCE, MOST_PULLBACKS, OWN_DIRECTIONS
from oracles.diagnosis.experiments import Symptoms, Trial, agrees, roughly_agrees
from oracles.finite_differences import directional_derivative
from oracles.numerics import unit_roundoff
from oracles.rule import Array, Output, as_tuple, is_differentiable, with_dtype


def missing(symptoms: Symptoms) -> str | None:
    """Detect that no cotangent is returned."""
    return f"no cotangent was returned for {symptoms.name}" if symptoms.actual is None else None


def all_zero(symptoms: Symptoms) -> str | None:
    """Detect a cotangent that is zero for every delta."""
    return "every entry is zero, for every delta: the gradient never reaches it" if symptoms.always(_is_zero) else None


def _is_zero(trial: Trial) -> bool:
    zero = not np.any(trial.actual) and np.shape(trial.actual) == trial.expected.shape
    return zero and bool(np.any(trial.informative))


def not_repeatable(symptoms: Symptoms) -> str | None:
    """Detect another answer to the same call: state between calls, or arrays read in memory order."""
    again = symptoms.repetition
    if symptoms.actual is None or again is None or np.shape(again.actual) != symptoms.actual.shape:
        return None
    bound = _bound_of_two_calls(symptoms, symptoms.actual)
    if _are_equal(again.actual, symptoms.actual, bound):
        return None
    arrays = (*symptoms.primals.values(), *as_tuple(symptoms.delta))
    strided = any(not np.asarray(a).flags.c_contiguous for a in arrays)
    if not agrees(again.actual, symptoms.expected, symptoms.tolerance):
        changes = "the same call gave another answer the second time: it keeps state between calls, or draws at random"
        return None if strided else changes
    if strided:
        return "right for contiguous copies of the same arrays: it reads them in memory order"
    return "right when called again with copies of the same arrays: it keeps state between calls, or wrote into them"


def _bound_of_two_calls(symptoms: Symptoms, actual: Array) -> Array:
    """Return how far two answers to one call may differ by rounding, as those of threads and devices do."""
    if symptoms.has_expected_shape:
        return np.where(np.isnan(symptoms.tolerance), np.inf, 2 * symptoms.tolerance)
    size = float(np.max(np.abs(actual[np.isfinite(actual)]), initial=0.0))
    return np.full(actual.shape, CONFIDENCE * unit_roundoff(symptoms.precision) * actual.size**0.5 * size)


def _are_equal(a: Array, b: Array, bound: Array) -> bool:
    """Return whether two answers are equal up to a bound; NaN equals NaN, and where it is infinite nothing is known."""
    same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= bound) | np.isinf(bound)
    return bool(np.all(same))


def backward_of_own_forward(symptoms: Symptoms) -> str | None:
    """Detect a cotangent that is the derivative of the subject's own, wrong output."""
    if symptoms.primal_agrees or symptoms.is_output or not symptoms.has_expected_shape:
        return None
    if not all(_is_own_derivative(symptoms, seed) for seed in range(OWN_DIRECTIONS)):
        return None
    # A small difference from one reference alone says nothing of which of the two is off.
    if symptoms.primal_refused_by < 2 and _approximates(symptoms):
        return "it is the derivative of the subject's own output, which differs from the oracle's: one approximates"
    return "it is the derivative of the subject's own output, and that output is wrong: look at the forward pass"


def _approximates(symptoms: Symptoms) -> bool:
    """Return whether the subject's outputs differ from the oracle's by no more than an approximation of a function."""
    parts = [
        np.asarray(a, np.float64)
        for a in as_tuple(symptoms.subject(**symptoms.as_given(symptoms.primals, symptoms.delta)[0])[0])
    ]
    expected = symptoms.refusal.outputs
    if [a.shape for a in parts] != [e.shape for e in expected]:
        return False
    return all(np.linalg.norm(a - e) <= APPROXIMATED * np.linalg.norm(e) for a, e in zip(parts, expected, strict=True))


def _is_own_derivative(symptoms: Symptoms, seed: int) -> bool:
    """Return whether the subject's derivative in a random direction is its cotangent's, and not the oracle's."""
    direction = np.random.default_rng(seed).standard_normal(symptoms.expected.shape)
    primals = {
        n: np.array(with_dtype(a, np.float64)) if is_differentiable(a) else a for n, a in symptoms.primals.items()
    }
    slope, radius = directional_derivative(symptoms.subject, primals, symptoms.delta, {symptoms.name: direction})
    tolerance = radius + float(np.sum(symptoms.tolerance * np.abs(direction)))
    actual, expected = (float(np.sum(a * direction)) for a in (symptoms.refusal.actual, symptoms.expected))
    # The oracle's must differ, or the direction does not tell the two derivatives apart.
    return abs(actual - slope) <= tolerance < abs(expected - slope)


def other_name(symptoms: Symptoms) -> str | None:
    """Detect the cotangent of another primal."""
    if symptoms.is_output:
        return None
    for name, array in symptoms.primals.items():
        others = is_differentiable(array) and name != symptoms.name
        if others and symptoms.always(partial(_is_cotangent_of, name=name)):
            return f"it is the oracle's cotangent of {name}: names or positions are mixed up"
    return None


def _is_cotangent_of(trial: Trial, name: str) -> bool:
    informative = bool(np.any(trial.informative))
    return informative and agrees(trial.actual, trial.answers[name], trial.tolerances()[name])


def primal_transposed(symptoms: Symptoms) -> str | None:
    """Detect a cotangent computed with a square primal transposed: W where Wᵀ belongs."""
    if symptoms.is_output or not symptoms.has_expected_shape:
        return None
    for name, array in symptoms.primals.items():
        square = np.ndim(array) > 1 and array.shape[-1] == array.shape[-2] > 1
        if square and symptoms.always(partial(_is_answer_with_transposed, symptoms, name)):
            return f"it is the oracle's value with {name} transposed: a transpose too many, or one is missing"
    return None


def _is_answer_with_transposed(symptoms: Symptoms, name: str, trial: Trial) -> bool:
    primals = {**trial.primals, name: trial.primals[name].swapaxes(-1, -2)}
    other = symptoms.compare(trial.actual, primals, trial.delta)
    if not (roughly_agrees(trial.actual, other.expected, trial.tolerance) and np.any(trial.actual)):
        return False
    return agrees(trial.actual, other.expected, other.tolerance)


ArrayFunction: TypeAlias = Callable[[Array], Array]
DeltaChange: TypeAlias = Callable[[Trial], Output]

# Bounds at which gradients are commonly clipped; 1 is the most common one.
CLIPPING_BOUNDS = (1.0, 0.5, 0.1, 2.0, 5.0, 10.0)

# Functions of a whole array of delta: the pattern, its description, and the function.
CHANGES_OF_VALUES: list[tuple[str, str, ArrayFunction]] = [
    ("delta_ones", "delta taken as all ones", np.ones_like),
    ("delta_abs", "|delta| instead of delta", np.abs),
    ("delta_positive", "delta > 0 instead of delta", lambda d: (d > 0).astype(np.float64)),
    ("delta_positive", "max(delta, 0) instead of delta", lambda d: np.maximum(d, 0)),
    ("delta_sign", "the sign of delta instead of delta", np.sign),
    ("delta_summed", "every entry of delta replaced by delta's sum", lambda d: np.full_like(d, d.sum())),
    ("delta_summed", "every entry of delta replaced by delta's mean", lambda d: np.full_like(d, d.mean())),
    ("delta_squared", "the square of delta instead of delta", np.square),
    *(("delta_clipped", f"delta clipped to ±{c:g}", partial(np.clip, a_min=-c, a_max=c)) for c in CLIPPING_BOUNDS),
]


def changed_delta_pattern(kind: str) -> Callable[[Symptoms], str | None]:
    """Return the pattern that the subject's answer is the oracle's for a delta changed in one kind of way."""

    def description(symptoms: Symptoms) -> str | None:
        if symptoms.is_output:
            return None
        for pattern, words, change in _changes(symptoms):
            if pattern == kind and symptoms.always(partial(_is_answer_to, change)):
                return f"it is the oracle's value with {words}"
        return None

    return description


def _is_answer_to(change: DeltaChange, trial: Trial) -> bool:
    expected, tolerance = trial.pull_back(change(trial))
    if not (roughly_agrees(trial.actual, expected, trial.tolerance) and np.any(trial.actual)):
        return False
    # Both deltas are rounded on the way, so the larger tolerance holds: a changed delta of zeros would have none.
    return agrees(trial.actual, expected, np.maximum(tolerance(), trial.tolerance))


def _changes(symptoms: Symptoms) -> Iterator[tuple[str, str, DeltaChange]]:
    """Yield every change of delta that is tried: the pattern, its description, and the changed delta at a trial."""
    for pattern, words, function in CHANGES_OF_VALUES:
        yield pattern, words, partial(_change_every_part, function)
    parts = as_tuple(symptoms.delta)
    for i, d in enumerate(parts):
        name = f"delta[{i}]" if len(parts) > 1 else "delta"
        if len(parts) > 1:
            words = f"the contribution of output[{i}] missing"
            yield "term_missing", words, partial(_change_one_part, i, np.zeros_like)
        for pattern, words, function in _changes_of_entries(np.shape(d), name):
            yield pattern, words, partial(_change_one_part, i, function)
    for name, index in symptoms.primals.items():
        if index.dtype.kind in "iu" and index.ndim and np.shape(parts[0])[: index.ndim] == index.shape:
            for end in ("last", "first"):
                words = f"only the {end} reference counted, of rows that {name} references more than once"
                yield "repeated_indices", words, partial(_keep_one_reference, name, end)


def _changes_of_entries(shape: tuple[int, ...], name: str) -> Iterator[tuple[str, str, ArrayFunction]]:
    """Yield changes of one array of delta that drop entries, or put them in another order."""
    if len(shape) > 1:
        yield "delta_rearranged", f"{name} transposed", lambda d: d.swapaxes(-1, -2).reshape(d.shape)
        yield "delta_rearranged", f"{name} read in Fortran order", lambda d: d.ravel("F").reshape(d.shape)
    if np.prod(shape) > 1:
        yield "delta_first_only", f"only the first entry of {name} used", _keep_first_entry
    for axis in (a for a, n in enumerate(shape) if n > 1):
        yield "delta_rearranged", f"{name} reversed along axis {axis}", partial(np.flip, axis=axis)
        for index, end in ((0, "first"), (-1, "last")):
            step = f"the {end} step of {name} along axis {axis}"
            yield "delta_first_only", f"only {step} used", partial(_keep_slice, axis=axis, index=index)
            yield "term_missing", f"the contribution of {step} missing", partial(_drop_slice, axis=axis, index=index)
        for start, block in _starts_of_remainders(shape[axis]).items():
            words = f"the contribution of {name} from index {start} on along axis {axis} missing: {start} of "
            words += f"{shape[axis]} is the last multiple of {block}"
            yield "remainder_missing", words, partial(_drop_slice, axis=axis, index=slice(start, None))


def _starts_of_remainders(n: int) -> dict[int, int]:
    """Return where the remainder of a block starts, of more than one of n slices, with the largest such block."""
    return {n - n % block: block for block in BLOCK_SIZES if block < n and n % block > 1}


def _change_every_part(function: ArrayFunction, trial: Trial) -> Output:
    return tuple(map(function, trial.delta)) if isinstance(trial.delta, tuple) else function(trial.delta)


def _change_one_part(i: int, function: ArrayFunction, trial: Trial) -> Output:
    if not isinstance(trial.delta, tuple):
        return function(trial.delta)
    return tuple(function(d) if k == i else d for k, d in enumerate(trial.delta))


def _keep_first_entry(d: Array) -> Array:
    first = np.zeros_like(d)
    first.flat[0] = d.flat[0]
    return first


def _keep_slice(d: Array, axis: int, index: int) -> Array:
    return d - _drop_slice(d, axis, index)


def _drop_slice(d: Array, axis: int, index: int | slice) -> Array:
    rest = np.moveaxis(d.copy(), axis, 0)
    rest[index] = 0
    return np.moveaxis(rest, 0, axis)


def _keep_one_reference(name: str, end: str, trial: Trial) -> Array:
    """Return delta with zeros at all references to a row but one, as ``dE[index] = delta`` without a sum has it."""
    index = trial.primals[name].ravel()
    rows = np.asarray(trial.delta).reshape(index.size, -1)
    # np.unique returns the first occurrence, so the order is reversed to find the last.
    order = np.arange(index.size) if end == "first" else np.arange(index.size)[::-1]
    counted = order[np.unique(index[order], return_index=True)[1]]
    result = np.zeros_like(rows)
    result[counted] = rows[counted]
    return result.reshape(np.shape(trial.delta))


def delta_ignored(symptoms: Symptoms) -> str | None:
    """Detect the same answer for every delta."""
    other = symptoms.other_delta
    if symptoms.is_output or symptoms.actual is None or other is None or other.expected.shape != symptoms.actual.shape:
        return None
    # Zeros are the same for every delta wherever the true slope is lost in rounding.
    same = np.any(symptoms.actual) and agrees(other.actual, symptoms.actual, symptoms.tolerance)
    # If the oracle's answers do not differ either, equal answers show nothing.
    if not same or agrees(other.expected, symptoms.expected, symptoms.tolerance):
        return None
    return "the answer is the same for every delta: the incoming cotangent is ignored"


def block_diagonal(symptoms: Symptoms) -> str | None:
    """Detect that only the diagonal blocks of the Jacobian along an axis are used."""
    shape = symptoms.expected.shape
    if symptoms.is_output or isinstance(symptoms.delta, tuple) or not symptoms.has_expected_shape:
        return None
    # Only axes of one length correspond: block i of delta belongs to block i of the cotangent.
    pairs = [(a, b) for a, n in enumerate(np.shape(symptoms.delta)) for b, m in enumerate(shape) if n == m]
    for delta_axis, axis in pairs:
        relation = partial(_is_answer_by_blocks, delta_axis=delta_axis, axis=axis)
        if 1 < shape[axis] <= MOST_PULLBACKS and symptoms.always(relation):
            return (
                f"each index along axis {axis} got only the contribution of the same index of delta's axis "
                f"{delta_axis}: the off-diagonal part of the Jacobian is missing"
            )
    return None


def _is_answer_by_blocks(trial: Trial, delta_axis: int, axis: int) -> bool:
    delta = as_tuple(trial.delta)[0]
    answers = [trial.pull_back(_keep_slice(delta, delta_axis, i)) for i in range(trial.expected.shape[axis])]
    expected = np.stack([np.take(value, i, axis) for i, (value, _) in enumerate(answers)], axis)
    if not roughly_agrees(trial.actual, expected, trial.tolerance):
        return False
    tolerance = np.stack([np.take(tolerance(), i, axis) for i, (_, tolerance) in enumerate(answers)], axis)
    return agrees(trial.actual, expected, np.maximum(tolerance, trial.tolerance))
