"""The convex hull of a few points: whether another point lies in it."""

from __future__ import annotations

import numpy as np

from oracles.constants import HULL_ROUNDING, HULL_WEIGHT, HULL_ZERO
from oracles.rule import Array


def in_hull(point: Array, corners: Array, slack: Array) -> bool:
    """Return whether a point lies in the convex hull of the rows of ``corners``, up to ``slack`` in each entry.

    The coefficients are nonnegative; that they sum to one is one more row of the least squares.
    """
    scale = np.maximum(np.abs(corners).max(0), np.abs(point))
    scale[scale == 0] = 1.0
    corners = np.unique(corners / scale, axis=0)
    matrix, target = np.vstack([corners.T, np.full(len(corners), HULL_WEIGHT)]), np.append(point / scale, HULL_WEIGHT)
    distance = np.abs(matrix @ _nonnegative_least_squares(matrix, target) - target)
    # The least squares may move what is within the slack of the entries to the sum of the coefficients.
    allowed = np.append(slack / scale, np.linalg.norm(slack / scale))
    return bool(np.all(distance <= allowed + len(corners) * HULL_ROUNDING))


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
