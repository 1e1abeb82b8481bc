"""Patterns of entries that are wrong only at special values of a primal: zeros, ties, masks, signs, large values.

To be wrong at certain values is more than to be wrong where they happen to be. So the values are changed (zeros moved
away, ties broken, masks cleared), and everything must be right then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from oracles.diagnosis.arrays import roughly_agrees, spread_over
from oracles.diagnosis.constants import LARGE, LEAST_MAGNITUDE, UNTYING_FACTORS, VALUE_FOR_ZEROS, VALUES_FOR_TIED_ZEROS
from oracles.diagnosis.experiments import Symptoms, Trial
from oracles.diagnosis.patterns.wrong_entries import describe_wrong_entries
from oracles.rule import Array, is_differentiable

ArrayFunction: TypeAlias = Callable[[Array], Array]
Mask: TypeAlias = Callable[[Trial], Array]


class SpecialValues(NamedTuple):
    """Values of a primal that may cause errors.

    Attributes:
        pattern: the pattern that they belong to.
        where: where they are, in words.
        mask: the entries of the examined array that depend on them.
        replace: the primal without such values.
        primal: the name of the primal.
    """

    pattern: str
    where: str
    mask: Mask
    replace: ArrayFunction
    primal: str


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
    if not symptoms.always(partial(_is_confined, values.mask)):
        return False
    primals = {**symptoms.primals, values.primal: values.replace(symptoms.primals[values.primal])}
    trial = symptoms.evaluate_at(primals, symptoms.draw_delta(2))
    if trial is None or not roughly_agrees(trial.actual, trial.expected) or not np.any(trial.informative):
        return False
    return not np.any(trial.wrong) and bool(np.all(np.isfinite(trial.tolerance)))


def _is_confined(mask: Mask, trial: Trial) -> bool:
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
            yield SpecialValues("masked", f"where {name} is set", set_, np.zeros_like, name)
            yield SpecialValues("masked", f"where {name} is not set", not_set, np.ones_like, name)
        elif array.ndim and expected.ndim and array.size <= expected.shape[0]:
            where = f"in the rows that {name} references more than once"
            yield SpecialValues("repeated_indices", where, partial(_repeated_rows, name), _unrepeat, name)


def _floating_values(symptoms: Symptoms, name: str) -> Iterator[SpecialValues]:
    zeros, ties = partial(_mask_of, name, _is_zero), partial(_mask_of, name, _is_tied)
    yield SpecialValues("zeros", f"where {name} is exactly 0", zeros, _replace_zeros, name)
    yield SpecialValues("ties", f"at ties, where entries of {name} are equal", ties, _untie, name)
    for words, test, replace in SIGNS:
        yield SpecialValues("signs", f"where {name} is {words}", partial(_mask_of, name, test), replace, name)
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
        least_wrong = np.min(sizes[wrong], initial=np.inf)
        largest_right = np.max(sizes[~wrong & informative], initial=0.0)
        if least_wrong > max(largest_right, LARGE):
            where = f"where {words.format(name)} is large, from {least_wrong:.4g} on"
            where += f" (right up to {largest_right:.4g})" if largest_right else ""
            mask = partial(_mask_of, name, partial(_is_at_least, size, least_wrong))
            yield SpecialValues("saturated", where, mask, _scale_down, name)


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
    rng = np.random.default_rng(3)
    zeros, factors = rng.uniform(*VALUES_FOR_TIED_ZEROS, array.shape), rng.uniform(*UNTYING_FACTORS, array.shape)
    return np.where(array == 0, zeros, array * factors)


def _unrepeat(index: Array) -> Array:
    return np.arange(index.size, dtype=index.dtype).reshape(index.shape)


def _scale_down(array: Array) -> Array:
    return np.asarray(array / max(float(np.max(np.abs(array), initial=0.0)), LARGE))
