"""Patterns of a sum or mean over an axis: one that is missing, or one too many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from oracles.diagnosis.arrays import Axes, agrees, axes_text, axis_subsets
from oracles.diagnosis.constants import MOST_AXES
from oracles.diagnosis.experiments import Symptoms, Trial
from oracles.diagnosis.patterns.rearrangements import is_rearranged
from oracles.rule import Array

Reduction = Callable[..., Array]
REDUCTIONS: tuple[tuple[str, Reduction], ...] = (("sum", np.sum), ("mean", np.mean))


def not_reduced(symptoms: Symptoms) -> str | None:
    """Detect an axis that a sum should have removed."""
    actual, expected = symptoms.actual, symptoms.expected
    if actual is None or actual.size <= expected.size or actual.ndim > MOST_AXES or not expected.size:
        return None
    for axes in axis_subsets(actual.ndim):
        for word, reduction in REDUCTIONS:
            if symptoms.always(partial(_agrees_reduced, reduction=reduction, axes=axes)):
                return (
                    f"shape {actual.shape} for {expected.shape}: its {word} over {axes_text(axes)} is the oracle's "
                    "value — an axis that was broadcast is not reduced"
                )
    return None


def _agrees_reduced(trial: Trial, reduction: Reduction, axes: Axes) -> bool:
    """Return whether the subject's answer, once reduced, is the oracle's; axes of length one may be kept or not."""
    reduced, expected = np.asarray(reduction(trial.actual, axis=axes)), trial.expected
    if [n for n in reduced.shape if n > 1] != [n for n in expected.shape if n > 1] or not np.any(trial.informative):
        return False
    return agrees(reduced.reshape(expected.shape), expected, trial.tolerance)


def reduced_too_far(symptoms: Symptoms) -> str | None:
    """Detect a sum or mean over an axis that should have stayed."""
    shape = symptoms.expected.shape
    if len(shape) > MOST_AXES:
        return None
    for axes in axis_subsets(len(shape)):
        if all(shape[a] == 1 for a in axes):
            continue
        for word, reduction in REDUCTIONS:
            for keepdims in (True, False):
                if is_rearranged(symptoms, partial(reduction, axis=axes, keepdims=keepdims)):
                    return f"it is the oracle's value reduced by a {word} over {axes_text(axes)}, which should stay"
            if is_rearranged(symptoms, partial(_reduce_and_spread, reduction=reduction, axes=axes)):
                where = axes_text(axes)
                return f"all entries along {where} hold the {word} of the oracle's value over {where}"
    return None


def _reduce_and_spread(array: Array, reduction: Reduction, axes: Axes) -> Array:
    return np.broadcast_to(reduction(array, axis=axes, keepdims=True), array.shape)
