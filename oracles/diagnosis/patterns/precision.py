"""Patterns of small errors: a sum accumulated in a coarse precision, an iteration that stops before it has converged.

A rounding error is drawn anew wherever the input moves. The error of an iteration is smooth, until the number of its
steps changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import ml_dtypes
import numpy as np

from oracles.constants import (
    BISECTIONS,
    EXPERIMENT_SEED,
    LEAST_BEND,
    LEAST_GROWTH,
    LEAST_JUMP,
    LONGER_SUMS,
    MOST_PATH_POINTS,
    MOST_SMOOTH_CHANGE,
    PATH_LENGTH,
    PATH_POINTS,
    ROUGH_AGREEMENT,
    SMOOTH_STEP,
    STEP_IN_ROUNDINGS,
)
from oracles.diagnosis.candidates import agrees_where_known, floating_primals
from oracles.diagnosis.experiments import Symptoms, Trial
from oracles.diagnosis.patterns.blocks import resized_trial
from oracles.numerics import unit_roundoff
from oracles.rule import Array, Primals, is_differentiable

ACCUMULATORS = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}


def low_precision_accumulation(symptoms: Symptoms) -> str | None:
    """Detect a sum in a coarse precision: rounding errors that grow with the number of terms."""
    if not symptoms.has_expected_shape or not _is_small(symptoms.refusal) or symptoms.is_output:
        return None
    extents = {n for a in symptoms.primals.values() for n in np.shape(a)} - set(symptoms.expected.shape) - {0, 1}
    for n in sorted(extents):
        short, long = (resized_trial(symptoms, n, k * n) for k in (1, LONGER_SUMS))
        if short is None or long is None or not _is_small(long):
            continue
        growth = _relative_error(long) / _relative_error(short)
        # An error of a formula may grow as well, but it does not jump from input to input.
        if growth >= LEAST_GROWTH and _is_drawn_anew(symptoms):
            if not _is_within(symptoms):
                return None
            precision = _precision_of(symptoms.refusal.actual, _relative_error(long), LONGER_SUMS * n)
            return (
                f"rounding errors grow with the number of terms, {growth:.2g} times from {n} to {LONGER_SUMS * n}: a "
                f"sum is accumulated in {precision}"
            )
    return None


def _is_within(symptoms: Symptoms) -> bool:
    """Return whether each entry is right up to the coarsest precision."""
    ratio = max(map(unit_roundoff, ACCUMULATORS)) / unit_roundoff(symptoms.precision)
    return agrees_where_known(symptoms.refusal.actual, symptoms.expected, ratio * symptoms.tolerance)


def _is_drawn_anew(symptoms: Symptoms) -> bool:
    """Return whether the error is another one a few roundings of some coarse precision away."""
    steps = [STEP_IN_ROUNDINGS * unit_roundoff(name) for name in ACCUMULATORS]
    return any(LEAST_BEND < _change_nearby(symptoms, step) < np.inf for step in steps)


def _is_small(trial: Trial) -> bool:
    """Return whether the error is a small part of the value, all entries finite, and not zero."""
    return bool(0 < _relative_error(trial) <= ROUGH_AGREEMENT)


def _relative_error(trial: Trial) -> float:
    return float(np.linalg.norm(trial.error) / np.linalg.norm(trial.expected))


def _precision_of(actual: Array, relative: float, terms: int) -> str:
    """Return the precision in which the entries have a value, or whose errors have this size over so many terms."""
    for name, dtype in ACCUMULATORS.items():
        if np.array_equal(actual.astype(dtype).astype(np.float64), actual):
            return name
    # n roundings of partial sums that grow evenly are √(n/3) of one.
    one = relative / (terms / 3) ** 0.5
    near = [name for name in ACCUMULATORS if 0.5 <= one / unit_roundoff(name) <= 2]
    return near[0] if near else "a coarse precision"


def not_converged(symptoms: Symptoms) -> str | None:
    """Detect the error of an iteration that stops at a tolerance: small, smooth nearby, with jumps farther away.

    A jump is where the number of steps changes. An iteration of a fixed number of steps has none, and is not found.
    """
    if not symptoms.has_expected_shape or not _is_small(symptoms.refusal):
        return None
    if _is_rounded(symptoms) or _change_nearby(symptoms, SMOOTH_STEP) > MOST_SMOOTH_CHANGE:
        return None
    for name in list(floating_primals(symptoms))[:3]:
        if any(_jumps(path) for path in _paths(symptoms, name)):
            size = _relative_error(symptoms.refusal)
            return (
                f"the error is small ({size:.1g} of the value) and smooth nearby, and jumps by about its size where "
                f"{name} moves: like that of an iteration that stops at a tolerance; solve further, or declare "
                f"oracles.declared(subject, solved_to={size:.0e})"
            )
    return None


def _is_rounded(symptoms: Symptoms) -> bool:
    """Return whether a coarser precision has all the values: its rounding is smooth and jumps, too."""
    actual = symptoms.refusal.actual
    coarser = [d for name, d in ACCUMULATORS.items() if unit_roundoff(name) > unit_roundoff(symptoms.precision)]
    with np.errstate(over="ignore"):
        return any(np.array_equal(actual.astype(dtype).astype(actual.dtype), actual) for dtype in coarser)


def _change_nearby(symptoms: Symptoms, step: float) -> float:
    """Return how much the error changes over a small step, as a share of the error; infinite if unknown."""
    rng = np.random.default_rng((EXPERIMENT_SEED, 7))

    def move(array: Array) -> Array:
        return array * (1 + step * rng.uniform(0.5, 1, np.shape(array))) if is_differentiable(array) else array

    primals = {n: move(a) for n, a in symptoms.primals.items()}
    delta = tuple(map(move, symptoms.delta)) if isinstance(symptoms.delta, tuple) else move(symptoms.delta)
    here, there = symptoms.repetition, symptoms.evaluate_at(primals, delta)
    if here is None or there is None or there.error.shape != here.error.shape:
        return float("inf")
    change = float(np.linalg.norm(there.error - here.error) / np.linalg.norm(here.error))
    return change if np.isfinite(change) else float("inf")


class Path:
    """A line of points along which one primal moves, from the refused point on."""

    def __init__(self, symptoms: Symptoms, name: str, direction: Array) -> None:
        self._symptoms, self._name, self._direction = symptoms, name, direction

    def trial(self, t: float) -> Trial | None:
        """Return the trial at a point of the path, for the refused delta."""
        primals: Primals = self._symptoms.primals
        moved = primals[self._name] * (1 + t * self._direction)
        return self._symptoms.evaluate_at({**primals, self._name: moved}, self._symptoms.delta)


def _paths(symptoms: Symptoms, name: str) -> Iterator[Path]:
    shape = np.shape(symptoms.primals[name])
    rng = np.random.default_rng((EXPERIMENT_SEED, 8))
    for direction in (-np.ones(shape), rng.uniform(-1, 1, shape)):
        yield Path(symptoms, name, direction)


def _jumps(path: Path) -> bool:
    """Return whether the error jumps somewhere along a path while the oracle does not."""
    points = np.linspace(0, PATH_LENGTH, PATH_POINTS).tolist()
    trials = [path.trial(t) for t in points]
    if any(trial is None or not _is_small(trial) for trial in trials):
        return False
    # Parts of the path over which the error changes, with the number of halvings that are left.
    parts = [(*ab, *xy, BISECTIONS) for ab, xy in zip(pairwise(points), pairwise(trials), strict=True)]
    for _ in range(MOST_PATH_POINTS):
        parts = [part for part in parts if _change(*part[2:4]) > LEAST_JUMP * max(map(_size, part[2:4]))]
        if not parts:
            return False
        # Depth first: a jump stays as large in ever smaller parts.
        low, high, first, last, left = parts.pop()
        if not left:
            moved = np.linalg.norm(last.expected - first.expected) if first and last else np.inf
            return bool(moved < LEAST_JUMP * _change(first, last))
        middle = (low + high) / 2
        trial = path.trial(middle)
        parts += [(low, middle, first, trial, left - 1), (middle, high, trial, last, left - 1)]
    return False


def _size(trial: Trial | None) -> float:
    return float(np.linalg.norm(trial.error)) if trial is not None else np.inf


def _change(first: Trial | None, second: Trial | None) -> float:
    return float(np.linalg.norm(first.error - second.error)) if first is not None and second is not None else np.inf
