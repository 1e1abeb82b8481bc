"""Whether a primal has a derivative at a point, asked of its values alone.

Finite differences along one axis may not say. Of the median of three equal numbers every one may move without moving
it: the slope along each axis is 0, and no derivative exists. A function that has one is linear so near the point:
moving one entry changes it by as much at any point close by. Where that change is another one, and does not shrink with
the distance, the primal has a kink.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracles.constants import BEND_SAFETY, BEND_SAMPLES, BEND_STEP, KINK_FAR, KINK_JUMP_SHARE
from oracles.rule import Array, Output, Primals, Rule, as_tuple, is_differentiable
from oracles.user_code import Raised, attempt

ROUNDOFF = 2.0**-53  # of float64


def has_kink(rule: Rule, primals: Primals, delta: Output, name: str, entry: int) -> bool:
    """Return whether the primal of a rule has a kink next to a point that one entry takes part in.

    An output that jumps between the points has no slope there, and shows no kink. True where the rule raises nearby,
    since nothing is known then.

    Args:
        rule: the rule, whose primal alone is used.
        primals, delta: the point, in float64.
        name: the primal.
        entry: its entry, as a flat index.
    """
    found = attempt(lambda: any(_bends(rule, primals, delta, name, *moves) for moves in _moves(primals, name, entry)))
    return isinstance(found, Raised) or found


def _moves(primals: Primals, name: str, entry: int) -> Iterator[tuple[Primals, Array]]:
    """Yield steps of all primals in random directions, and with each a longer step of the one entry."""
    rng = np.random.default_rng(0)
    floating = {n: a for n, a in primals.items() if is_differentiable(a) and a.size}
    sizes = {n: float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))) or 1.0 for n, a in floating.items()}
    for k in range(BEND_SAMPLES):
        around = {n: BEND_STEP * sizes[n] * rng.standard_normal(a.shape) for n, a in floating.items()}
        # Beyond all the others, on either side.
        alone = np.zeros(primals[name].shape)
        alone.flat[entry] = (-1) ** k * 4 * BEND_STEP * sizes[name]
        yield around, alone


def _bends(rule: Rule, primals: Primals, delta: Output, name: str, around: Primals, alone: Array) -> bool:
    """Return whether the change of a primal by one step is another one next to the point, near to it and far."""
    weights = [np.abs(np.asarray(d, np.float64).ravel()) for d in as_tuple(delta)]

    def outputs(scale: float, *, moved: bool, shifted: bool) -> Array:
        point = {n: a + scale * around[n] if shifted and n in around else a for n, a in primals.items()}
        point[name] = np.asarray(point[name] + scale * alone if moved else point[name])
        parts = as_tuple(rule(**{n: np.asarray(a) for n, a in point.items()})[0])
        return np.asarray(np.concatenate([np.asarray(y, np.float64).ravel() for y in parts]) * np.concatenate(weights))

    def change_at(scale: float) -> tuple[Array, Array, float]:
        """Return by how much the change differs, over the distance; the jump to the points; and the rounding."""
        here, there = outputs(scale, moved=False, shifted=False), outputs(scale, moved=False, shifted=True)
        one, other = (outputs(scale, moved=True, shifted=s) for s in (False, True))
        jump = np.abs([there - here, one - here, other - here]).max(axis=0)
        # What cancels in a small output was as large as the others inside.
        sizes = np.abs([here, there, one, other])
        rounding = ROUNDOFF * float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))
        return np.abs((other - there) - (one - here)) / scale, jump, rounding / scale

    with np.errstate(all="ignore"):
        far, far_jump, _ = change_at(1.0)
        near, near_jump, rounding = change_at(1 / KINK_FAR)
        continuous = near_jump <= far_jump * KINK_JUMP_SHARE + BEND_SAFETY * rounding / KINK_FAR
        bends = (near > far * KINK_JUMP_SHARE) & (near > BEND_SAFETY * rounding)
    return bool(np.any(bends & continuous))


def slopes_nearby(rule: Rule, primals: Primals, delta: Output, name: str, entry: int) -> tuple[float, float] | None:
    """Return between what the slopes of a primal in one entry lie, at a point and next to it, on both sides.

    The primal is weighted by delta. ``None`` where a slope is not finite, or grows as the step shrinks: the derivative
    is infinite there, or the primal jumps.

    Args:
        rule: the rule, whose primal alone is used.
        primals, delta: the point, in float64.
        name: the primal.
        entry: its entry, as a flat index.
    """
    found = attempt(lambda: _range_of_slopes(rule, primals, delta, name, entry))
    return None if isinstance(found, Raised) else found


def _range_of_slopes(rule: Rule, primals: Primals, delta: Output, name: str, entry: int) -> tuple[float, float] | None:
    weights = np.concatenate([np.asarray(d, np.float64).ravel() for d in as_tuple(delta)])
    moves = list(_moves(primals, name, entry))
    step = np.abs(moves[0][1]) / 4

    def outputs(base: Primals, scale: float) -> Array:
        parts = as_tuple(rule(**{**base, name: np.asarray(base[name] + scale * step)})[0])
        return np.asarray(np.concatenate([np.asarray(y, np.float64).ravel() for y in parts]) * weights)

    lowest, highest, rounding = np.full(weights.shape, np.inf), np.full(weights.shape, -np.inf), 0.0
    length = float(step.max())
    with np.errstate(all="ignore"):
        for around in ({}, *(around for around, _ in moves)):
            base = {n: np.asarray(a + around[n]) if n in around else a for n, a in primals.items()}
            here, sizes = outputs(base, 0.0), []
            for scale in (1.0, 1 / KINK_FAR):
                sides = [(outputs(base, s * scale) - here) / (s * scale * length) for s in (1, -1)]
                lowest, highest = np.minimum(lowest, np.min(sides, axis=0)), np.maximum(highest, np.max(sides, axis=0))
                sizes.append(np.abs(sides).sum())
            rounding = max(rounding, BEND_SAFETY * ROUNDOFF * float(np.abs(here).sum()) * KINK_FAR / length)
            if not np.all(np.isfinite(sizes)) or sizes[1] > 2 * sizes[0] + rounding:
                return None
    return float(lowest.sum()) - rounding, float(highest.sum()) + rounding
