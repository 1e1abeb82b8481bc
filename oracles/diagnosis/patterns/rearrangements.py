"""Patterns of the right entries in a wrong order or shape: transposed, reversed, reshaped, shifted, permuted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations
from typing import TypeAlias

import numpy as np

from oracles.constants import MOST_SLICES, REARRANGED_AXES
from oracles.diagnosis.experiments import Symptoms, Trial, agrees, axes_text, axis_subsets
from oracles.rule import Array

Rearrangement: TypeAlias = Callable[[Array], Array]


def is_rearranged(symptoms: Symptoms, rearrange: Rearrangement) -> bool:
    """Return whether the subject's answer is always the oracle's, rearranged; the tolerance is rearranged as well."""
    return symptoms.always(partial(_agrees_rearranged, rearrange))


def _agrees_rearranged(rearrange: Rearrangement, trial: Trial) -> bool:
    informative = bool(np.any(trial.informative))
    return informative and agrees(trial.actual, rearrange(trial.expected), rearrange(trial.tolerance))


def rearrangement_pattern(kind: str) -> Callable[[Symptoms], str | None]:
    """Return the pattern that tries the rearrangements of one kind."""

    def description(symptoms: Symptoms) -> str | None:
        for pattern, sentence, rearrange in _rearrangements(symptoms):
            if pattern == kind and is_rearranged(symptoms, rearrange):
                return sentence
        return None

    return description


def _rearrangements(symptoms: Symptoms) -> Iterator[tuple[str, str, Rearrangement]]:
    """Yield every rearrangement that is tried: the pattern, its sentence, and the function."""
    shape, ndim = symptoms.expected.shape, symptoms.expected.ndim
    if ndim <= REARRANGED_AXES:
        # The first permutation is the identity.
        for order in list(permutations(range(ndim)))[1:]:
            sentence = f"it is the oracle's value transposed: its axes in the order {order}"
            yield "transposed", sentence, partial(np.transpose, axes=order)
        for axes in axis_subsets(ndim):
            sentence = f"it is the oracle's value reversed along {axes_text(axes)}"
            yield "reversed", sentence, partial(np.flip, axis=axes)
    if ndim > 1:
        sentence = "it is the oracle's value with its entries in {} order read in {} order"
        yield "reshaped", sentence.format("Fortran", "C"), lambda a: a.ravel("F").reshape(shape)
        yield "reshaped", sentence.format("C", "Fortran"), lambda a: a.ravel().reshape(shape, order="F")
    for axis in range(ndim):
        for step in (1, -1):
            where = f"along axis {axis}, by {step:+d}"
            yield "shifted", f"it is the oracle's value shifted {where}", partial(_shift, axis=axis, step=step)
            yield "shifted", f"it is the oracle's value rolled {where}", partial(np.roll, axis=axis, shift=step)
    yield from _reshapings(symptoms)


def _reshapings(symptoms: Symptoms) -> Iterator[tuple[str, str, Rearrangement]]:
    if symptoms.actual is None or symptoms.has_expected_shape or symptoms.actual.size != symptoms.expected.size:
        return
    shape = symptoms.actual.shape
    yield "shape", f"the right entries in shape {shape} for {symptoms.expected.shape}", lambda a: a.reshape(shape)
    yield "shape", f"the right entries in shape {shape}, in Fortran order", lambda a: a.reshape(shape, order="F")


def _shift(array: Array, axis: int, step: int) -> Array:
    shifted = np.moveaxis(np.roll(array, step, axis), axis, 0).copy()
    # A shift drops the slice that a roll brings round to the other end.
    shifted[0 if step > 0 else -1] = 0
    return np.moveaxis(shifted, 0, axis)


def permuted(symptoms: Symptoms) -> str | None:
    """Detect slices along an axis, or entries, in another order, the same one for every delta."""
    if not symptoms.has_expected_shape:
        return None
    arrays = (symptoms.refusal.actual, symptoms.expected, symptoms.tolerance)
    # Whole slices come first: a permutation of entries would fit as well, and says less.
    for axis in range(symptoms.expected.ndim):
        order = _order(*(np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1) for a in arrays))
        if order is not None and is_rearranged(symptoms, partial(np.take, indices=order, axis=axis)):
            return f"it is the oracle's value with its slices along axis {axis} in the order {order.tolist()}"
    order = _order(*(a.reshape(-1, 1) for a in arrays))
    if order is not None and is_rearranged(symptoms, partial(_permute_entries, order=order)):
        return f"the right entries at other locations: in the order {order.tolist()} of the oracle's, flattened"
    return None


def _permute_entries(array: Array, order: Array) -> Array:
    return np.asarray(array.ravel()[order].reshape(array.shape))


def _order(actual: Array, expected: Array, tolerance: Array) -> Array | None:
    """Return the permutation of the rows of ``expected`` that gives those of ``actual``, if there is exactly one."""
    if len(expected) > MOST_SLICES:
        return None
    equal = np.all(np.abs(actual[:, None] - expected[None]) <= tolerance[None], axis=-1)
    # Equal slices fit at several positions, and then no order is known.
    unique = np.all(equal.sum(0) == 1) and np.all(equal.sum(1) == 1)
    return np.argmax(equal, axis=1) if unique else None
