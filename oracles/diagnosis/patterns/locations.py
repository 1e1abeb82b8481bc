"""Pattern of errors at fixed locations: rows, steps, a triangle, a border, whatever the primals' values are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.diagnosis.constants import SHOWN_INDICES, WRONG_SHARE
from oracles.diagnosis.experiments import Symptoms, Trial
from oracles.diagnosis.patterns.wrong_entries import describe_wrong_entries
from oracles.rule import Array

Mask: TypeAlias = Callable[[Trial], Array]


def wrong_only_in_locations(symptoms: Symptoms) -> str | None:
    """Detect errors at the same rows, columns, steps or border in every trial, also with shuffled primals."""
    if not symptoms.has_expected_shape:
        return None
    for words, mask in _locations(symptoms):
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
    """Yield diagonal, border, interior and triangles of the last two axes."""
    shape, wrong = symptoms.expected.shape, symptoms.refusal.wrong
    if len(shape) < 2 or min(shape[-2:]) < 2:
        return
    i, j = (np.asarray(a) for a in np.indices(shape[-2:]))
    inside = (i > 0) & (i < shape[-2] - 1) & (j > 0) & (j < shape[-1] - 1)
    yield "on the diagonal of the last two axes", partial(_fixed_mask, np.equal(i, j))
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
    if indices.size > 2 and np.all(steps == steps[0]):
        return f"at the indices from {indices[0]} on in steps of {steps[0]}"
    return f"at the indices {', '.join(map(str, indices[:SHOWN_INDICES]))}"
