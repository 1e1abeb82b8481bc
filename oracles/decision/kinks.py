"""Test for a subgradient: at a point without a derivative, several gradients are right.

Clarke's generalized gradient is the convex hull of the limits of gradients nearby. So the reference is evaluated at
many points close by. Where the gradients there equal the one at the point, there is no kink. Where they jump, the
subject's cotangent must lie in their convex hull. Kinks of independent entries are independent, so the hull is taken
over groups of entries that one input moves together: at each of two zeros of ReLU any slope is right, but at a tied
maximum only weights that sum to one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeAlias

import numpy as np

from oracles.constants import (
    HULL_ROUNDING,
    HULL_SLACK,
    HULL_WEIGHT,
    HULL_ZERO,
    KINK_FAR,
    KINK_INPUTS,
    KINK_JUMP_SHARE,
    KINK_SAMPLES,
    KINK_STEP,
    TIE_SAMPLES,
)
from oracles.rule import Array, Output, Primals, Rule, is_differentiable

SMALLEST_NORMAL = 2.0**-1022  # of float64
# The largest difference of each entry among gradients nearby, by the primal's name; flat arrays.
Spread: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """A rule's gradients at points close to one point, evaluated once for all arrays that are judged there.

    Attributes:
        rule: computes the gradients.
        primals, delta: the point, in float64.
        least_step: the smallest step that counts: a primal closer to a kink may be flushed onto it.
    """

    rule: Rule
    primals: Primals
    delta: Output
    least_step: float = SMALLEST_NORMAL

    @cached_property
    def sizes(self) -> dict[str, float]:
        """The size of a step for each primal that has a cotangent."""
        floating = {n: a for n, a in self.primals.items() if is_differentiable(a) and a.size > 0}
        return {n: _step(a, self.least_step) for n, a in floating.items()}

    @cached_property
    def near(self) -> Spread:
        """How far the gradients nearby spread.

        Raises:
            Exception: whatever the rule raises where it has no value.
        """
        return self._spread(1.0)

    @cached_property
    def far(self) -> Spread:
        """The same at `KINK_FAR` times the distance."""
        return self._spread(KINK_FAR)

    def _spread(self, factor: float) -> Spread:
        lowest: dict[str, Array] = {}
        highest: dict[str, Array] = {}
        # All gradients at once would take 64 times the memory of the arrays.
        for gradients in self._evaluations(factor):
            lowest = {n: np.minimum(lowest[n], g) for n, g in gradients.items()} if lowest else gradients
            highest = {n: np.maximum(highest[n], g) for n, g in gradients.items()} if highest else gradients
        return {n: highest[n] - low for n, low in lowest.items()}

    def _evaluations(self, factor: float) -> Iterator[dict[str, Array]]:
        rng = np.random.default_rng(0)  # a verdict is a function of the input
        for _ in range(KINK_SAMPLES):
            # The step is that of the nearer point, times a number: both points lie in one direction.
            steps = {n: h * rng.standard_normal(self.primals[n].shape) for n, h in self.sizes.items()}
            yield self.gradients({n: factor * step for n, step in steps.items()})

    def samples(self, name: str, entries: Array) -> Array:
        """Return some entries of one cotangent at the points nearby, one row for each point."""
        return np.array([gradients[name][entries] for gradients in self._evaluations(1.0)])

    def gradients(self, steps: Primals) -> dict[str, Array]:
        """Return the cotangents a step away, flat and in float64; without those of a subject that are no such array."""
        moved = {n: a + steps[n] if n in steps else a for n, a in self.primals.items()}
        cotangents = self.rule(**moved)[1](self.delta)
        arrays = {n: g for n, g in cotangents.items() if n in self.sizes and isinstance(g, np.ndarray)}
        return {
            n: np.asarray(g, np.float64).ravel()
            for n, g in arrays.items()
            if is_differentiable(g) and g.shape == self.primals[n].shape
        }


def is_subgradient(
    name: str, actual: Array, expected: Array, neighbourhood: Neighbourhood, tolerance: Array
) -> bool | None:
    """Return whether ``actual`` is a subgradient with respect to a primal; ``None`` if no kink explains it.

    Args:
        name: the primal whose cotangent is judged.
        actual: the subject's cotangent, in float64.
        expected: an oracle's cotangent, in float64.
        neighbourhood: the gradients nearby.
        tolerance: how far rounding may move each entry.
    """
    actual, expected, tolerance = actual.ravel(), expected.ravel(), tolerance.ravel()
    near, far = neighbourhood.near[name], neighbourhood.far[name]
    # Two gradients differ by rounding where each is off by its tolerance.
    change = np.maximum(2 * tolerance, far * KINK_JUMP_SHARE)
    jumps, off = near > change, np.abs(actual - expected) > tolerance
    if not np.any(jumps & off):
        return None
    # An error where the gradient is smooth is no choice of a subgradient.
    if np.any(off & ~jumps):
        return False
    groups = _groups(name, neighbourhood, jumps, change)
    slack = 2 * tolerance + near * HULL_SLACK
    samples = neighbourhood.samples(name, jumps)
    position = np.cumsum(jumps) - 1
    return all(_in_hull(actual[g], samples[:, position[g]], slack[g]) for g in groups)


def stays_tied(name: str, entries: Array, rule: Rule, primals: Primals, delta: Output, tolerance: Array) -> bool:
    """Return whether gradients at some entries stay where equal numbers move alike: the kink is a tie of the inputs.

    Equal inputs are equal for everybody, however they round. A tie that rounding makes, as a sum that cancels to 0, is
    another one in another order of summation, and comes apart here.

    Args:
        name: the primal whose cotangent is judged.
        entries: its entries, as booleans.
        rule: computes the gradients.
        primals, delta: the point, in float64.
        tolerance: how far rounding may move each entry.
    """

    def gradient(steps: Primals) -> Array:
        nearby = {n: a * (1 + steps[n]) if n in steps else a for n, a in primals.items()}
        return np.asarray(rule(**nearby)[1](delta)[name], np.float64)

    rng, here = np.random.default_rng(0), gradient({})
    for _ in range(TIE_SAMPLES):
        # The sign is a function of the number's bits: the highest bit of its product with a random odd number.
        factor = np.uint64(2 * int(rng.integers(2**62)) + 1)
        bits = {n: np.ascontiguousarray(a).view(np.uint64) for n, a in primals.items() if is_differentiable(a)}
        steps = {n: KINK_STEP * (1.0 - 2.0 * ((b * factor) >> np.uint64(63))).reshape(b.shape) for n, b in bits.items()}
        moved = np.abs(gradient(steps) - here)
        # The gradient may also change smoothly, by about the step.
        if np.any((moved > 2 * tolerance + HULL_SLACK * np.abs(here).max(initial=0.0))[entries]):
            return False
    return True


def _step(array: Array, least_step: float) -> float:
    """Return the size of a step: relative to the largest entry, and at least twice the least step."""
    size = float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
    return max(KINK_STEP * (size or 1.0), 2 * least_step)


def _groups(name: str, neighbourhood: Neighbourhood, jumps: Array, change: Array) -> list[Array]:
    """Return the indices of jumping entries of a cotangent, in groups that one input entry moves together."""
    # Every jumping entry starts as a group of its own; groups that one input moves together get the lowest label.
    label = np.where(jumps, np.arange(jumps.size), -1)
    shapes = {n: neighbourhood.primals[n].shape for n in neighbourhood.sizes}
    if sum(map(prod, shapes.values())) <= KINK_INPUTS:
        for n, step in neighbourhood.sizes.items():
            for k in range(prod(shapes[n])):
                one = np.zeros(shapes[n])
                one.flat[k] = step
                above, below = (neighbourhood.gradients({n: sign * one})[name] for sign in (1.0, -1.0))
                together = jumps & (np.abs(above - below) > change)
                if np.count_nonzero(together) > 1:
                    label[np.isin(label, label[together])] = label[together].min()
    return [np.flatnonzero(label == group) for group in np.unique(label[jumps])]


def _in_hull(point: Array, corners: Array, slack: Array) -> bool:
    """Return whether a point lies in the convex hull of the rows of ``corners``, up to ``slack`` in each entry.

    The coefficients are nonnegative; that they sum to one is one more row of the least squares.
    """
    scale = np.maximum(np.abs(corners).max(0), np.abs(point))
    scale[scale == 0] = 1.0
    corners = np.unique(corners / scale, axis=0)
    matrix = np.vstack([corners.T, np.full(len(corners), HULL_WEIGHT)])
    coefficients = _nonnegative_least_squares(matrix, np.append(point / scale, HULL_WEIGHT))
    distance = np.abs(corners.T @ coefficients - point / scale)
    return bool(np.all(distance <= slack / scale + len(corners) * HULL_ROUNDING))


def _nonnegative_least_squares(matrix: Array, target: Array) -> Array:
    """Return the x ≥ 0 that minimizes ‖matrix·x − target‖: Lawson and Hanson (1974), algorithm 23.10."""
    n = matrix.shape[1]
    x, active = np.zeros(n), np.zeros(n, bool)
    for _ in range(3 * n + 10):
        slope = matrix.T @ (target - matrix @ x)
        slope[active] = -np.inf
        best = int(np.argmax(slope))
        if slope[best] <= HULL_ROUNDING:
            break
        active[best] = True
        while True:
            trial = np.zeros(n)
            trial[active] = np.linalg.lstsq(matrix[:, active], target, rcond=None)[0]
            below = active & (trial <= 0)
            if not np.any(below):
                x = trial
                break
            t = np.min(x[below] / (x[below] - trial[below]))
            x = x + t * (trial - x)
            active &= x > HULL_ZERO
            x[~active] = 0.0
            if not np.any(active):
                break
    return x
