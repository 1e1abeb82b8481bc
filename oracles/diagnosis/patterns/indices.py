"""Patterns of indices: slices in the wrong slots, heads of the wrong group, ids that repeat within a bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from oracles.constants import MOST_PULLBACKS, MOST_SLICES, PRODUCT_ROUNDINGS
from oracles.diagnosis.candidates import Candidate, first_confirmed
from oracles.diagnosis.experiments import Expectation, Symptoms, Trial
from oracles.rule import Array

IndexMap = Callable[[int, int, int], int]  # (index, number of indices, number of slots) -> slot


def index_map(symptoms: Symptoms) -> str | None:
    """Detect the right values in the wrong slots: slices read from, or summed into, other slices of an axis."""
    if symptoms.is_output or not symptoms.has_expected_shape:
        return None
    return first_confirmed(symptoms, _gathered(symptoms)) or first_confirmed(symptoms, _scattered(symptoms))


def _gathered(symptoms: Symptoms) -> Iterator[tuple[str, Candidate]]:
    """Yield the oracle's value with the slices along one axis read from others, not one to one."""
    for axis, n in enumerate(symptoms.expected.shape):
        arrays = (symptoms.refusal.actual, symptoms.expected, symptoms.tolerance)
        slots = _slots(*(np.moveaxis(a, axis, 0).reshape(n, -1) for a in arrays)) if 1 < n <= MOST_SLICES else None
        if slots is not None and np.unique(slots).size < n:
            sentence = f"slices along axis {axis} are the oracle's slices {slots.tolist()}: a wrong map of indices"
            yield sentence, partial(_take, slots, axis)


def _slots(actual: Array, expected: Array, tolerance: Array) -> Array | None:
    """Return for each row of ``actual`` the one row of ``expected`` that it is; ``None`` if that is not clear."""
    if actual.shape[1] < 2:  # single numbers may be equal by chance
        return None
    equal = np.all(np.abs(actual[:, None] - expected[None]) <= tolerance[None], axis=-1)
    return np.argmax(equal, axis=1) if np.all(equal.sum(1) == 1) else None


def _take(slots: Array, axis: int, trial: Trial) -> Expectation:
    return Expectation(np.take(trial.expected, slots, axis), lambda: np.take(trial.tolerance, slots, axis))


# Maps of n indices to m slots that are taken for one another: heads to groups, say.
MAPS: dict[str, IndexMap] = {
    "h mod {m}": lambda h, n, m: h % m,
    "h div {d}": lambda h, n, m: h * m // n,
    "the last {m} in order": lambda h, n, m: max(0, h - (n - m)),
    "the first {m} in order": lambda h, n, m: min(h, m - 1),
    "h div {d}, reversed": lambda h, n, m: m - 1 - h * m // n,
}


def _scattered(symptoms: Symptoms) -> Iterator[tuple[str, Candidate]]:
    """Yield sums over the slices of delta into other slots than the oracle's: a wrong group of a head."""
    if isinstance(symptoms.delta, tuple):
        return
    for axis, m in enumerate(symptoms.expected.shape):
        for delta_axis, n in enumerate(np.shape(symptoms.delta)):
            if not (1 < m < n <= MOST_PULLBACKS and n % m == 0):
                continue
            right = _map_of(symptoms.refusal, delta_axis, axis)
            for words, index_map in MAPS.items() if right is not None else ():
                wrong = [index_map(h, n, m) for h in range(n)]
                if wrong != right:
                    rule = words.format(m=m, d=n // m)
                    yield (
                        f"index h of delta's axis {delta_axis} is added to slot {rule} along axis {axis}, where the "
                        f"oracle adds it to the slots {right}: a wrong group",
                        partial(_in_other_slots, delta_axis, axis, wrong),
                    )


def _contributions(trial: Trial, delta_axis: int) -> list[Expectation]:
    """Return what each slice of delta contributes to the oracle's value."""
    delta = np.asarray(trial.delta)
    answers = []
    for h in range(delta.shape[delta_axis]):
        part = np.zeros_like(delta)
        index = (slice(None),) * delta_axis + (h,)
        part[index] = delta[index]
        answers.append(trial.pull_back(part))
    return answers


def _map_of(trial: Trial, delta_axis: int, axis: int) -> list[int] | None:
    """Return the one slot that each slice of delta contributes to; ``None`` if one contributes to several."""
    slots = []
    for value, _ in _contributions(trial, delta_axis):
        others = tuple(a for a in range(value.ndim) if a != axis)
        reached = np.flatnonzero(np.any(value != 0, axis=others))
        if reached.size != 1:
            return None
        slots.append(int(reached[0]))
    return slots


def _in_other_slots(delta_axis: int, axis: int, wrong: list[int], trial: Trial) -> Expectation:
    right = _map_of(trial, delta_axis, axis)
    contributions = _contributions(trial, delta_axis)
    if right is None:
        return Expectation(np.full(trial.expected.shape, np.nan), lambda: trial.tolerance)
    value = np.moveaxis(np.zeros_like(trial.expected), axis, 0)
    for h, (part, _) in enumerate(contributions):
        value[wrong[h]] += np.take(part, right[h], axis)

    def tolerance() -> Array:
        # Each contribution has the tolerance of its own slot; their sum is that of the slots that it is made of.
        total = np.moveaxis(np.zeros_like(trial.expected), axis, 0)
        for h, (_, part) in enumerate(contributions):
            total[wrong[h]] += np.take(part(), right[h], axis)
        return np.moveaxis(total, 0, axis)

    return Expectation(np.moveaxis(value, 0, axis), tolerance)


def repeated_in_bag(symptoms: Symptoms) -> str | None:
    """Detect ids that count once for each bag, however often they repeat within it."""
    expected = symptoms.expected
    if symptoms.is_output or not symptoms.has_expected_shape or expected.ndim < 1 or isinstance(symptoms.delta, tuple):
        return None
    candidates = []
    for name, ids in symptoms.primals.items():
        bags = len(ids) if ids.ndim > 1 else 0
        if ids.dtype.kind in "iu" and 0 < bags <= MOST_PULLBACKS and np.shape(symptoms.delta)[:1] == (bags,):
            sentence = f"an id that {name} repeats within a bag counts once: add as often as it occurs"
            candidates.append((sentence, partial(_counted_once, name)))
    return first_confirmed(symptoms, candidates)


def _counted_once(name: str, trial: Trial) -> Expectation:
    counts = [_counts(bag, len(trial.expected)) for bag in trial.primals[name]]
    answers = _contributions(trial, 0)
    factors = [1 / np.maximum(c, 1).reshape(-1, *(1,) * (trial.expected.ndim - 1)) for c in counts]
    value = np.sum([k * a.value for k, a in zip(factors, answers, strict=True)], axis=0)
    # The sum of the bags' tolerances is one for all bags together.
    return Expectation(value, lambda: PRODUCT_ROUNDINGS * np.sum([a.tolerance() for a in answers], axis=0))


def _counts(ids: Array, rows: int) -> Array:
    return np.bincount(ids.ravel() % rows, minlength=rows)
