"""Patterns of sizes: a remainder of a block, a limit of an index, an extent from which everything is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from oracles.constants import BLOCK_SIZES, EXPERIMENT_SEED, MOST_ENLARGED_ENTRIES, WRONG_SHARE
from oracles.diagnosis.experiments import Symptoms, Trial, midpoint, result_or_none
from oracles.rule import Array, Output, as_tuple


class Hypothesis(NamedTuple):
    """Which slices along an axis are wrong, for any extent n: those from ``start(n)`` on."""

    block: int
    is_limit: bool

    def start(self, n: int) -> int:
        """Return the first wrong slice of n."""
        return min(self.block, n) if self.is_limit else n - n % self.block

    def text(self, axis: int, n: int) -> str:
        """Say what is wrong."""
        if self.is_limit:
            return f"wrong only from index {self.block} on along axis {axis}, at other extents too: a limit of an index"
        return (
            f"wrong only in the remainder of a block: from the last multiple of {self.block} on along axis {axis} "
            f"({self.start(n)} of {n}), at other extents too"
        )


def block_remainder(symptoms: Symptoms) -> str | None:
    """Detect errors beyond the last multiple of a block size, beyond an index, or from an extent on."""
    trial = symptoms.refusal
    if not symptoms.has_expected_shape or not np.any(trial.wrong):
        return None
    for axis, n in enumerate(symptoms.expected.shape):
        first = _first_wrong(trial, axis)
        hypotheses = [h for h in _hypotheses(n) if 0 < h.start(n) < n and h.start(n) == first]
        if not hypotheses or not _fits(hypotheses[0], trial, axis):
            continue
        # At other extents the hypotheses that remain predict other slices; one of them must fit all.
        for other in _other_extents(hypotheses, n):
            resized = resized_trial(symptoms, n, other) if hypotheses else None
            hypotheses = [h for h in hypotheses if resized is not None and _fits(h, resized, axis)]
        if len(hypotheses) == 1:
            return hypotheses[0].text(axis, n)
    return _wrong_from_extent(symptoms)


def _first_wrong(trial: Trial, axis: int) -> int:
    others = tuple(a for a in range(trial.wrong.ndim) if a != axis)
    return int(np.argmax(np.any(trial.wrong, axis=others)))


def _hypotheses(n: int) -> Iterator[Hypothesis]:
    for block in BLOCK_SIZES:
        if block < n:
            yield Hypothesis(block, False)
            yield Hypothesis(block, True)


def _other_extents(hypotheses: list[Hypothesis], n: int) -> list[int]:
    """Return extents at which the hypotheses differ: half a block more, some blocks more, and no remainder."""
    blocks = [h.block for h in hypotheses]
    more = [n + max(1, b // 2) for b in blocks if (n + max(1, b // 2)) % b] + [n + b for b in blocks]
    return sorted({*more, hypotheses[0].start(n)})


def _fits(hypothesis: Hypothesis, trial: Trial, axis: int) -> bool:
    """Return whether the predicted slices are wrong, most of their entries at least, and all others right."""
    n = trial.expected.shape[axis]
    others = [1] * trial.expected.ndim
    others[axis] = n
    predicted = np.broadcast_to((np.arange(n) >= hypothesis.start(n)).reshape(others), trial.expected.shape)
    if np.any(trial.wrong & ~predicted):
        return False
    if hypothesis.start(n) == n:
        return True
    wrong = np.count_nonzero(trial.wrong & predicted)
    return bool(wrong > WRONG_SHARE * np.count_nonzero(trial.informative & predicted))


def resized_trial(symptoms: Symptoms, n: int, other: int) -> Trial | None:
    """Call both rules with every axis of one extent resized; ``None`` if that is too large or does not fit together.

    The entries are repeated, or cropped: they stay in the domain of the function.
    """
    primals = {name: resize(a, n, other) for name, a in symptoms.primals.items()}
    if sum(a.size for a in primals.values()) > MOST_ENLARGED_ENTRIES:
        return None
    # The output may have another extent than the primals: that of a convolution is shorter.
    return result_or_none(partial(symptoms.evaluate_in_shape, primals, partial(_drawn_like, other)))


def _drawn_like(seed: int, output: Output) -> Output:
    rng = np.random.default_rng((EXPERIMENT_SEED, seed))
    parts = tuple(np.asarray(rng.standard_normal(midpoint(part).shape)) for part in as_tuple(output))
    return parts if isinstance(output, tuple) else parts[0]


def resize(array: Array, n: int, other: int) -> Array:
    """Return an array with each axis of extent n repeated or cropped to another extent."""
    for axis in (a for a, extent in enumerate(array.shape) if extent == n):
        array = np.take(array, np.arange(other) % n, axis)
    return array


def _wrong_from_extent(symptoms: Symptoms) -> str | None:
    """Detect a function that is right up to an extent, and wrong in most entries from the next one on."""
    primal = symptoms.primals.get(symptoms.name)
    for axis, n in enumerate(np.shape(primal) if primal is not None else ()):
        right, wrong = 1, n
        if n <= min(BLOCK_SIZES) or not _is_right_at(symptoms, n, right) or not _is_right_at(symptoms, n, 2):
            continue
        while wrong - right > 1:
            middle = (right + wrong) // 2
            verdict = _is_right_at(symptoms, n, middle)
            if verdict is None:
                return None
            right, wrong = (middle, wrong) if verdict else (right, middle)
        # A wrong slice at that index would be right in all others; that is the pattern of a location.
        trial = resized_trial(symptoms, n, n + 1)
        if right in BLOCK_SIZES and trial is not None and np.mean(trial.wrong) > WRONG_SHARE:
            return f"right up to an extent of {right} along axis {axis} of {symptoms.name}, wrong from {wrong} on"
    return None


def _is_right_at(symptoms: Symptoms, n: int, other: int) -> bool | None:
    trial = resized_trial(symptoms, n, other)
    if trial is None or np.shape(trial.actual) != trial.expected.shape:
        return None
    return not np.any(trial.wrong)
