"""Finite differences of a rule's own primal: no framework, no derivative, and an error bound of their own.

Central differences over a ladder of steps are extrapolated (Ridders 1982; Richardson), and the spread between the
last extrapolations bounds the truncation and rounding error together. At a kink the central difference settles on
the mean of the two sides, and below a kink's own width it may settle on anything: there the gap between the one-sided
slopes does not vanish with the step, or far smaller steps contradict the result, and the radius is infinite. So the
oracle says by itself what it cannot see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oracles.rule import Array, Enclosure, Primals, Pullback, Rule, as_tuple, is_differentiable

STEPS = 6  # h, h/4, h/16, …: the ladder of steps
RATIO = 4.0
PROBES = (2.0**-13, 2.0**-16, 2.0**-20, 2.0**-32)  # far smaller steps, which must not contradict the ladder
NEARER = (1.0, 2.0**-8, 2.0**-16)  # how much smaller the steps become where the domain ends within them
SAFETY = 10.0  # the spread between neighbours in the tableau, times this, is the radius


def finite_difference(rule: Rule, *, name: str = "finite difference") -> Rule:
    """Lift the primal of ``rule`` into an oracle whose cotangents are `Enclosure`s; the rule's pullback is not used.

    One entry costs ``2·STEPS + 1`` evaluations of the primal, so this is for small inputs; for large ones see
    `directional_derivative`.
    """

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        y, _ = rule(**primals)

        def pullback(delta: Any) -> dict[str, Enclosure]:
            found = {}
            for target, array in primals.items():
                if not is_differentiable(array):
                    continue
                slopes = np.zeros((2, array.size))
                for k in range(array.size):
                    direction = np.zeros(array.size)
                    direction[k] = 1.0
                    slopes[:, k] = directional_derivative(
                        rule, primals, delta, {target: direction.reshape(array.shape)}
                    )
                found[target] = Enclosure(*slopes.reshape(2, *array.shape))
            return found

        return y, pullback

    return Rule(evaluate, name)


def directional_derivative(rule: Rule, primals: Primals, delta: Any, direction: Primals) -> tuple[float, float]:
    """Return ``d/dt ⟨delta, f(primals + t·direction)⟩`` at t = 0, and a radius that bounds its error.

    The primals should be float64. By the adjoint identity this is ``⟨Jᵀ delta, direction⟩``, so it judges a
    pullback with nothing but the primal.
    """
    along = [name for name, d in direction.items() if np.any(d)]
    size = max((float(np.max(np.abs(primals[name]), initial=0.0)) for name in along), default=1.0)
    unit = max((float(np.max(np.abs(direction[name]))) for name in along), default=1.0)
    unit = max(unit, 2.0**-1022)  # along subnormal numbers a step would be infinite
    step = 2.0**-4 * (2.0 ** round(float(np.log2(size))) if size > 2.0**-10 else 2.0**-10) / unit
    weights = [np.asarray(d, np.float64) for d in as_tuple(delta)]

    def height(t: float) -> tuple[list[Array], float]:
        """f(primals + t·direction), and the size of the terms of ⟨delta, f⟩ there."""
        moved = {n: a if n not in direction else a + t * direction[n] for n, a in primals.items()}
        parts = [np.asarray(part, np.float64) for part in as_tuple(rule(**moved)[0])]
        return parts, sum(float(np.sum(np.abs(w * p))) for w, p in zip(weights, parts, strict=True))

    def sides(t: float) -> tuple[float, float, float]:
        """The central slope at t, how far the one-sided slopes are from it, and the rounding in either."""
        (up, size_up), (down, size_down) = height(t), height(-t)
        if np.isfinite(at_point) and not (np.isfinite(size_up) and np.isfinite(size_down)):
            raise FloatingPointError("the primal is no number beside the point")
        terms = list(zip(weights, up, middle, down, strict=True))
        slope = sum(float(np.sum(w * (u - d))) for w, u, _, d in terms) / (2 * t)
        gap = sum(float(np.sum(np.abs(w * ((u - m) + (d - m))))) for w, u, m, d in terms) / (2 * t)
        return slope, gap, ((size_up + size_down) * 2.0**-53 + 2.0**-1022) / (2 * t) + 2.0**-1074

    with np.errstate(all="ignore"):
        middle, at_point = height(0.0)
        for nearer in NEARER:
            try:
                return _on_a_ladder(sides, step * nearer)
            except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError):
                continue  # the domain ends within the step
    return 0.0, np.inf


def _on_a_ladder(sides: Callable[[float], tuple[float, float, float]], step: float) -> tuple[float, float]:
    """Return the slope extrapolated from a ladder of steps, and its radius: infinite where probes contradict it."""
    slopes, gaps, roundings = zip(*(sides(step / RATIO**k) for k in range(STEPS)), strict=True)
    slope, radius = _extrapolated(slopes, roundings, first_power=2)
    gap, doubt = _extrapolated(gaps, roundings, first_power=1)
    probes = [sides(step * probe) for probe in PROBES]
    contradicted = any(not abs(s - slope) <= radius + SAFETY * g + 2 * r for s, g, r in probes)
    if gap > doubt or contradicted:
        return float(slope), np.inf
    # What the first probe's rounding hides, no step of the ladder may have seen.
    return float(slope), float(radius + probes[0][2])


def _extrapolated(values: Sequence[float], roundings: Sequence[float], first_power: int) -> tuple[float, float]:
    """Neville's tableau for a series in h^p, h^{p+2}, …: the entry that agrees best with those around it.

    Its radius is SAFETY times the worst difference from its neighbours and from two rows before: one small
    difference may be luck.
    """
    best, radius = 0.0, np.inf
    rows: list[list[float]] = []
    for value, rounding in zip(values, roundings, strict=True):
        new = [value]
        for j, before in enumerate(rows[-1] if rows else []):
            new.append(new[j] + (new[j] - before) / (RATIO ** (first_power + 2 * j) - 1))
        for j in range(2, len(new)):
            beside = (new[j - 1], rows[-1][j - 1], rows[-2][j - 2])
            spread = SAFETY * (max(abs(new[j] - b) for b in beside) + 2 * rounding)
            if spread < radius:
                best, radius = new[j], spread
        rows.append(new)
    return best, radius
