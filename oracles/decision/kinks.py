"""Tell a subgradient from a wrong gradient, at a point without a derivative.

Clarke's generalized gradient is the convex hull of the limits of gradients nearby. So the reference is evaluated at
many points a hair away: where the gradient there is the one at the point, there is no kink; where it jumps, the
subject's cotangent must lie in the hull of what was seen. Kinks of independent entries are independent, so the hull
is taken over groups of entries that one input moves together: any choice at each of two zeros of ReLU is fine, but of
a tied maximum only weights that sum to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oracles.rule import Array, Primals, Rule, is_differentiable

STEP = 2.0**-44  # how far away, relative to the size of a primal: a steep function is smooth over so little
SAMPLES = 32
MOST_INPUTS = 512  # above that, coupled entries are not looked for


def subgradient(
    name: str,
    got: Array,
    want: Array,
    nearby: Rule,
    primals: Primals,
    delta: Any,
    allowed: Array,
    least: float = 2.0**-1022,
) -> bool | None:
    """Return whether ``got`` is a subgradient with respect to ``name``; ``None`` where no kink explains it.

    Args:
        name: the primal whose cotangent is judged.
        got: the subject's cotangent; want: what an oracle says it should be, both in float64.
        nearby: a Rule that gives the gradients nearby; primals, delta: the point, in float64.
        allowed: how far rounding may move each entry.
        least: the smallest step that counts: what is nearer to a kink may have been flushed onto it.
    """

    def gradient(steps: Primals) -> Array:
        moved = {n: a + steps[n] if n in steps else a for n, a in primals.items()}
        return np.asarray(nearby(**moved)[1](delta)[name], np.float64).ravel()

    rng = np.random.default_rng(0)
    sizes = {
        n: max(STEP * (float(np.max(np.abs(a), initial=0.0)) or 1.0), 2 * least) for n, a in primals.items() if _real(a)
    }
    ways = [{n: h * rng.standard_normal(primals[n].shape) for n, h in sizes.items()} for _ in range(SAMPLES)]
    got, want, allowed = got.ravel(), want.ravel(), allowed.ravel()
    near = np.array([gradient(way) for way in ways])
    far = np.array([gradient({n: 64 * w for n, w in way.items()}) for way in ways])
    # What is smooth changes 64 times as much over 64 times the way; a jump is as large from nearby as from afar.
    change = np.maximum(2 * allowed, np.ptp(far, axis=0) / 8)
    jumps, off = np.ptp(near, axis=0) > change, np.abs(got - want) > allowed
    if not np.any(jumps & off):
        return None
    if np.any(off & ~jumps):
        return False
    groups = _groups(gradient, {n: (h, primals[n].shape) for n, h in sizes.items()}, jumps, change)
    room = 2 * allowed + np.ptp(near, axis=0) * 2.0**-20
    return all(_in_hull(got[g], near[:, g], room[g]) for g in groups)


def _real(array: Array) -> bool:
    return is_differentiable(array) and array.size > 0


def _groups(
    gradient: Callable[[Primals], Array],
    inputs: Mapping[str, tuple[float, tuple[int, ...]]],
    jumps: Array,
    change: Array,
) -> list[Array]:
    """Group the jumping entries that one input entry moves together."""
    label = np.where(jumps, np.arange(jumps.size), -1)
    if sum(int(np.prod(shape)) for _, shape in inputs.values()) <= MOST_INPUTS:
        for name, (step, shape) in inputs.items():
            for k in range(int(np.prod(shape))):
                way = np.zeros(shape)
                way.flat[k] = step
                together = jumps & (np.abs(gradient({name: way}) - gradient({name: -way})) > change)
                if np.count_nonzero(together) > 1:
                    label[np.isin(label, label[together])] = label[together].min()
    return [np.flatnonzero(label == group) for group in np.unique(label[jumps])]


def _in_hull(point: Array, corners: Array, room: Array) -> bool:
    """Return whether a point lies in the convex hull of the rows of ``corners``, up to ``room`` in each entry."""
    scale = np.maximum(np.abs(corners).max(0), np.abs(point))
    scale[scale == 0] = 1.0
    corners = np.unique(corners / scale, axis=0)
    weights = _nonnegative_least_squares(
        np.vstack([corners.T, np.full(len(corners), 8.0)]), np.append(point / scale, 8.0)
    )
    miss = np.abs(corners.T @ weights - point / scale)
    return bool(np.all(miss <= room / scale + len(corners) * 2.0**-40))


def _nonnegative_least_squares(matrix: Array, target: Array) -> Array:
    """Lawson and Hanson (1974), algorithm 23.10: min ‖matrix·x − target‖ over x ≥ 0."""
    n = matrix.shape[1]
    x, active = np.zeros(n), np.zeros(n, bool)
    for _ in range(3 * n + 10):
        slope = matrix.T @ (target - matrix @ x)
        slope[active] = -np.inf
        best = int(np.argmax(slope))
        if slope[best] <= 2.0**-40:
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
            active &= x > 2.0**-60
            x[~active] = 0.0
            if not np.any(active):
                break
    return x
