"""Patterns of errors in some entries only: at fixed locations, at special values of a primal, or by what they hold.

To be wrong at certain values is more than to be wrong where they happen to be. So the values are changed (zeros moved
away, ties broken, masks cleared), and everything must be right then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from oracles.constants import (
    EXPERIMENT_SEED,
    FURTHER_FACTORS,
    LARGE_VALUE,
    LEAST_MAGNITUDE,
    MOVED_POINTS,
    PRODUCT_ROUNDINGS,
    SIGN_SHARE,
    UNTYING_FACTORS,
    VALUE_FOR_ZEROS,
    VALUES_FOR_TIED_ZEROS,
    WRONG_SHARE,
)
from oracles.diagnosis.experiments import Symptoms, Trial, agrees, roughly_agrees, spread_over
from oracles.rule import Array, is_differentiable

# How many a sentence names: a report line must stay readable.
SHOWN_INDICES = 8

Mask: TypeAlias = Callable[[Trial], Array]


def wrong_only_in_locations(symptoms: Symptoms) -> str | None:
    """Detect errors at the same rows, columns, steps or border in every trial, also with shuffled primals."""
    if not symptoms.has_expected_shape:
        return None
    trial = symptoms.refusal
    # The tightest first: of all entries off a diagonal of three, most are on the border as well.
    locations = sorted(_locations(symptoms), key=lambda location: np.count_nonzero(location[1](trial) & ~trial.wrong))
    for words, mask in locations:
        other_delta = [] if symptoms.is_output else [symptoms.other_delta]
        trials = (symptoms.refusal, *other_delta, symptoms.shuffled_primals)
        if all(trial is not None and _is_confined(trial, mask(trial)) for trial in trials):
            return f"wrong only {words}{describe_wrong_entries(symptoms)}, right everywhere else"
    return None


def _is_confined(trial: Trial, mask: Array) -> bool:
    """Return whether all wrong entries are in the mask, most of the mask is wrong, and something else is right."""
    outside = trial.informative & ~mask
    confined = np.any(outside) and not np.any(trial.wrong & outside)
    count = np.count_nonzero(trial.wrong)
    return bool(confined and count > WRONG_SHARE * np.count_nonzero(trial.informative & mask))


def _locations(symptoms: Symptoms) -> Iterator[tuple[str, Mask]]:
    """Yield every set of locations that is tried, the most specific first."""
    # A label or a triangle says more than the slices that happen to contain it.
    yield from _indexed_entries(symptoms)
    yield from _parts_of_matrices(symptoms)
    wrong = symptoms.refusal.wrong
    if np.count_nonzero(wrong) == 1:
        yield f"at [{', '.join(str(i[0]) for i in np.nonzero(wrong))}]", partial(_fixed_mask, wrong)
    for axis, n in enumerate(wrong.shape):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        slices = np.any(wrong, axis=others)
        if n > 1 and not np.all(slices):
            mask = np.any(wrong, axis=others, keepdims=True)
            yield f"{_slices_text(np.flatnonzero(slices), n)} along axis {axis}", partial(_fixed_mask, mask)


def _indexed_entries(symptoms: Symptoms) -> Iterator[tuple[str, Mask]]:
    """Yield the entry that an integer primal names in each row (the label of a loss), and all others."""
    shape = symptoms.expected.shape
    for name, array in symptoms.primals.items():
        if array.dtype.kind in "iu" and len(shape) and array.shape == shape[:-1]:
            yield f"at the entry that {name} names in each row", partial(_named_entries, name=name)
            yield f"except at the entry that {name} names in each row", partial(_other_entries, name=name)


def _named_entries(trial: Trial, name: str) -> Array:
    return np.asarray(trial.primals[name][..., None] == np.arange(trial.expected.shape[-1]))


def _other_entries(trial: Trial, name: str) -> Array:
    return ~_named_entries(trial, name)


def _parts_of_matrices(symptoms: Symptoms) -> Iterator[tuple[str, Mask]]:
    """Yield diagonal, all but the diagonal, border, interior and triangles of the last two axes."""
    shape, wrong = symptoms.expected.shape, symptoms.refusal.wrong
    if len(shape) < 2 or min(shape[-2:]) < 2:
        return
    i, j = (np.asarray(a) for a in np.indices(shape[-2:]))
    inside = (i > 0) & (i < shape[-2] - 1) & (j > 0) & (j < shape[-1] - 1)
    yield "on the diagonal of the last two axes", partial(_fixed_mask, np.equal(i, j))
    yield "off the diagonal of the last two axes", partial(_fixed_mask, np.not_equal(i, j))
    # Where only one side of the border is wrong, the slices along an axis say it better.
    if np.all(np.any(wrong, axis=-1)[..., [0, -1]]):
        yield "on the border of the last two axes", partial(_fixed_mask, ~inside)
    yield "inside the border of the last two axes", partial(_fixed_mask, inside)
    yield "above the diagonal of the last two axes", partial(_fixed_mask, np.less(i, j))
    yield "below the diagonal of the last two axes", partial(_fixed_mask, np.greater(i, j))


def _fixed_mask(mask: Array, trial: Trial) -> Array:
    return np.broadcast_to(mask, trial.expected.shape)


def _slices_text(indices: Array, n: int) -> str:
    """Say which of n slices are meant, as simply as possible."""
    steps = np.diff(indices)
    if indices.size == 1:
        words = {0: "in the first slice", n - 1: "in the last slice"}
        return words.get(int(indices[0]), f"at index {indices[0]}")
    if np.all(steps == 1) and indices[-1] == n - 1:
        return f"in the last {indices.size} slices"
    if np.all(steps == 1) and indices[0] == 0:
        return f"in the first {indices.size} slices"
    if indices.size > 2 and np.all(steps == 1):
        return f"at the indices {indices[0]} to {indices[-1]}"
    if indices.size > 2 and np.all(steps == steps[0]) and indices[-1] + steps[0] >= n:
        return f"at the indices from {indices[0]} on in steps of {steps[0]}"
    return f"at the indices {', '.join(map(str, indices[:SHOWN_INDICES]))}"


ArrayFunction: TypeAlias = Callable[[Array], Array]
Move: TypeAlias = Callable[[Array, np.random.Generator], Array]


def _shuffled(array: Array, rng: np.random.Generator) -> Array:
    """Return the slices along every axis in another order: entries that are compared in a slice stay together."""
    return array[np.ix_(*map(rng.permutation, array.shape))] if array.ndim else array


def _with_other_signs(array: Array, rng: np.random.Generator) -> Array:
    signs, factors = rng.choice((-1.0, 1.0), array.shape), rng.uniform(*FURTHER_FACTORS, array.shape)
    return np.asarray(_shuffled(array, rng) * signs * factors)


class SpecialValues(NamedTuple):
    """Values of a primal that may cause errors.

    Attributes:
        pattern: the pattern that they belong to.
        where: where they are, in words.
        mask: the entries of the examined array that depend on them.
        replace: the primal without such values.
        primal: the name of the primal.
        move: the primal with such values at other entries.
    """

    pattern: str
    where: str
    mask: Mask
    replace: ArrayFunction
    primal: str
    move: Move


def special_value_pattern(kind: str) -> Callable[[Symptoms], str | None]:
    """Return the pattern that only special values of one kind cause errors."""

    def description(symptoms: Symptoms) -> str | None:
        if not symptoms.has_expected_shape:
            return None
        for values in _special_values(symptoms):
            if values.pattern == kind and _explains_all(symptoms, values):
                return f"wrong only {values.where}{describe_wrong_entries(symptoms)}; right once there are none"
        return None

    return description


def _explains_all(symptoms: Symptoms, values: SpecialValues) -> bool:
    """Return whether all errors are at the values, and none is left once the values are replaced."""
    if not symptoms.in_all_trials(partial(_are_errors_special, values.mask)):
        return False
    primals = {**symptoms.primals, values.primal: values.replace(symptoms.primals[values.primal])}
    # A third delta: those of the experiments have been used to find the values.
    trial = symptoms.evaluate_at(primals, symptoms.draw_delta(2))
    if trial is None or not roughly_agrees(trial.actual, trial.expected) or not np.any(trial.informative):
        return False
    right = not np.any(trial.wrong) and bool(np.all(np.isfinite(trial.tolerance)))
    return right and _do_errors_follow(symptoms, values)


def _do_errors_follow(symptoms: Symptoms, values: SpecialValues) -> bool:
    """Return whether the errors move along when the values move, to where they are then and nowhere else."""
    array = np.asarray(symptoms.primals[values.primal])
    # About half of all entries have a sign, so errors are often there by chance; other values are rare.
    by_chance = values.pattern == "signs"
    trials = []
    for k in range(MOVED_POINTS):
        moved = values.move(array, np.random.default_rng((EXPERIMENT_SEED, 300 + k)))
        trial = symptoms.evaluate_at({**symptoms.primals, values.primal: moved}, symptoms.draw_delta(3 + k))
        if trial is not None and np.all(np.isfinite(trial.expected)):
            trials.append((trial, values.mask(trial)))
    if any(np.any(trial.wrong & ~special) for trial, special in trials):
        return False
    if not by_chance:
        return not trials or any(np.any(trial.wrong) for trial, _ in trials)
    exposed = sum(np.count_nonzero(trial.informative & special) for trial, special in trials)
    elsewhere = any(np.any(trial.informative & ~special) for trial, special in trials)
    wrong = sum(np.count_nonzero(trial.wrong) for trial, _ in trials)
    return elsewhere and bool(wrong > SIGN_SHARE * exposed)


def _are_errors_special(mask: Mask, trial: Trial) -> bool:
    special = mask(trial)
    return bool(np.any(special) and not np.any(trial.wrong & ~special))


def _special_values(symptoms: Symptoms) -> Iterator[SpecialValues]:
    """Yield every kind of special values that is tried."""
    expected = symptoms.expected
    for name, array in symptoms.primals.items():
        if is_differentiable(array):
            yield from _floating_values(symptoms, name)
        elif array.dtype.kind == "b":
            set_, not_set = partial(_mask_of, name, np.asarray), partial(_mask_of, name, np.logical_not)
            yield SpecialValues("masked", f"where {name} is set", set_, np.zeros_like, name, _shuffled)
            yield SpecialValues("masked", f"where {name} is not set", not_set, np.ones_like, name, _shuffled)
        elif array.ndim and expected.ndim and array.size <= expected.shape[0]:
            where = f"in the rows that {name} references more than once"
            yield SpecialValues("repeated_indices", where, partial(_repeated_rows, name), _unrepeat, name, _shuffled)


def _floating_values(symptoms: Symptoms, name: str) -> Iterator[SpecialValues]:
    zeros, ties = partial(_mask_of, name, _is_zero), partial(_mask_of, name, _is_tied)
    yield SpecialValues("zeros", f"where {name} is exactly 0", zeros, _replace_zeros, name, _shuffled)
    yield SpecialValues("ties", f"at ties, where entries of {name} are equal", ties, _untie, name, _shuffled)
    for words, test, replace in SIGNS:
        mask = partial(_mask_of, name, test)
        yield SpecialValues("signs", f"where {name} is {words}", mask, replace, name, _with_other_signs)
    yield from _large_values(symptoms, name)


# A test for a sign, and the array with the other sign.
SIGNS: list[tuple[str, ArrayFunction, ArrayFunction]] = [
    ("negative", lambda a: a < 0, np.abs),
    ("positive", lambda a: a > 0, lambda a: -np.abs(a)),
    ("negative or 0", lambda a: a <= 0, lambda a: np.maximum(np.abs(a), LEAST_MAGNITUDE)),
    ("positive or 0", lambda a: a >= 0, lambda a: -np.maximum(np.abs(a), LEAST_MAGNITUDE)),
]
# What may be large: the magnitude, or the value in one direction.
SIZES: list[tuple[str, ArrayFunction]] = [("|{}|", np.abs), ("{}", np.positive), ("-{}", np.negative)]


def _large_values(symptoms: Symptoms, name: str) -> Iterator[SpecialValues]:
    """Yield values above a threshold, if the wrong entries have larger ones than the right entries have."""
    wrong, informative = symptoms.refusal.wrong, symptoms.refusal.informative
    for words, size in SIZES:
        sizes = spread_over(size(symptoms.primals[name]), symptoms.expected.shape)
        # A threshold must separate the wrong entries from those that are known to be right.
        least_wrong = np.min(sizes[wrong], initial=np.inf)
        largest_right = np.max(sizes[~wrong & informative], initial=0.0)
        if least_wrong > max(largest_right, LARGE_VALUE):
            where = f"where {words.format(name)} is large, from {least_wrong:.4g} on"
            where += f" (right up to {largest_right:.4g})" if largest_right else ""
            mask = partial(_mask_of, name, partial(_is_at_least, size, least_wrong))
            yield SpecialValues("saturated", where, mask, _scale_down, name, _shuffled)


def _mask_of(name: str, test: ArrayFunction, trial: Trial) -> Array:
    return spread_over(test(trial.primals[name]), trial.expected.shape)


def _repeated_rows(name: str, trial: Trial) -> Array:
    return spread_over(trial.reference_counts(name) > 1, trial.expected.shape)


def _is_zero(array: Array) -> Array:
    return np.asarray(array == 0)


def _is_tied(array: Array) -> Array:
    _, where, counts = np.unique(array, return_inverse=True, return_counts=True)
    return np.asarray(counts[where].reshape(array.shape) > 1)


def _is_at_least(size: ArrayFunction, least: float, array: Array) -> Array:
    return np.asarray(size(array) >= least)


def _replace_zeros(array: Array) -> Array:
    return np.where(array == 0, VALUE_FOR_ZEROS, array)


def _untie(array: Array) -> Array:
    # A fixed seed: a diagnosis is a function of the refused call.
    rng = np.random.default_rng(3)
    zeros, factors = rng.uniform(*VALUES_FOR_TIED_ZEROS, array.shape), rng.uniform(*UNTYING_FACTORS, array.shape)
    return np.where(array == 0, zeros, array * factors)


def _unrepeat(index: Array) -> Array:
    return np.arange(index.size, dtype=index.dtype).reshape(index.shape)


def _scale_down(array: Array) -> Array:
    return np.asarray(array / max(float(np.max(np.abs(array), initial=0.0)), LARGE_VALUE))


def zero_in_some(symptoms: Symptoms) -> str | None:
    """Detect zeros in some entries, where the oracle has none, while all other entries are right."""
    if not symptoms.has_expected_shape or not symptoms.always(_is_zero_where_wrong):
        return None
    count = np.count_nonzero(symptoms.refusal.wrong)
    return f"zero in {count} of {symptoms.expected.size} entries, right in all others"


def _is_zero_where_wrong(trial: Trial) -> bool:
    wrong = trial.wrong
    return bool(np.any(wrong) and np.any(trial.informative & ~wrong) and not np.any(trial.actual[wrong]))


def sign_of_some(symptoms: Symptoms) -> str | None:
    """Detect entries of the right magnitude and the wrong sign."""
    if not symptoms.has_expected_shape or not symptoms.always(_has_right_magnitude):
        return None
    other = symptoms.other_delta
    if np.all(symptoms.refusal.actual >= 0) and other is not None and np.all(other.actual >= 0):
        return "it is the absolute value of the oracle's"
    count = np.count_nonzero(symptoms.refusal.wrong)
    return f"the sign is wrong in {count} of {symptoms.expected.size} entries, the magnitude right in all"


def _has_right_magnitude(trial: Trial) -> bool:
    return bool(np.any(trial.wrong)) and agrees(np.abs(trial.actual), np.abs(trial.expected), trial.tolerance)


def clipped(symptoms: Symptoms) -> str | None:
    """Detect a cotangent clipped at a bound."""
    if not symptoms.has_expected_shape or not symptoms.expected.size or symptoms.is_output:
        return None
    magnitudes, other = np.abs(symptoms.refusal.actual), symptoms.other_delta
    bound = float(np.max(magnitudes))
    # Several equal largest entries show the bound; a single one may be below it, and the other trial's above.
    if np.count_nonzero(magnitudes == bound) <= 1 and other is not None:
        bound = max(bound, float(np.max(np.abs(other.actual), initial=0.0)))
    # A bound of 0 clips nothing: the cotangent is zero here.
    if not bound or not symptoms.always(partial(_is_clipped, bound=bound)):
        return None
    return f"it is the oracle's value clipped to ±{bound:.6g}: gradient clipping inside the layer"


def _is_clipped(trial: Trial, bound: float) -> bool:
    return agrees(trial.actual, np.clip(trial.expected, -bound, bound), trial.tolerance)


def describe_wrong_entries(symptoms: Symptoms) -> str:
    """Say how many entries are wrong, and what they hold if all have it in common."""
    trial = symptoms.refusal
    actual, expected, tolerance = (a[trial.wrong] for a in (trial.actual, trial.expected, trial.tolerance))
    count = f" ({actual.size} of {trial.expected.size} entries)"
    # The most specific description first; the last one holds for any factor.
    if np.all(np.isnan(actual)):
        return count + ": NaN there"
    if not np.any(actual):
        return count + ": zero there"
    if agrees(actual, -expected, tolerance):
        return count + ": of the wrong sign there"
    if not np.all(np.isfinite(expected)):
        return count + (": where the oracle's is infinite" if np.all(np.isinf(expected)) else "")
    if not np.any(np.abs(expected) > tolerance):
        return count + ": where the oracle has zero"
    k = float(np.sum(actual * expected) / np.sum(expected * expected))
    if actual.size > 1 and agrees(actual, k * expected, PRODUCT_ROUNDINGS * abs(k) * tolerance):
        return count + f": {k:.6g} times the oracle's there"
    return count
