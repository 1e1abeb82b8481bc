"""Finite differences of a rule's own primal, with an estimate of their own error.

Central differences over a ladder of steps are extrapolated (Ridders 1982; Richardson). The spread between the last
extrapolations estimates truncation and rounding error together. At a kink the central difference converges to the mean
of the two sides, and between the steps of the ladder a narrow kink may be missed. There the gap between the one-sided
slopes does not vanish with the step, or far smaller steps contradict the result, and the radius is infinite: the
oracle refuses nothing that it cannot measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256

import numpy as np

from oracles.compiled import repeated
from oracles.constants import (
    DIFFERENCE_NEARER,
    DIFFERENCE_PROBES,
    DIFFERENCE_RATIO,
    DIFFERENCE_SAFETY,
    DIFFERENCE_STEP,
    DIFFERENCE_STEPS,
    DIFFERENCES_OF_MILLION,
    LEAST_SIZE,
    MOST_DIFFERENCES,
    MOST_MEASURED,
    ORDINARY_VALUES,
    REMEMBERED_BYTES,
    SETTLED_FROM,
    TINY_SIZE,
)
from oracles.notes import note
from oracles.rule import Array, Derived, Enclosure, Output, Primals, Pullback, Rule, as_tuple, is_differentiable
from oracles.stages import announce
from oracles.time_budget import is_out_of_time

# The unit roundoff, smallest normal and smallest positive number of float64, in which differences are computed.
ROUNDOFF, SMALLEST_NORMAL, SMALLEST = 2.0**-53, 2.0**-1022, 2.0**-1074
DIFFERENCES = "finite difference"  # what reports call this oracle
# A primal raises these where its domain ends.
OUTSIDE_DOMAIN = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)


def leaves_domain(error: Exception) -> bool:
    """Return whether a primal says by an exception that a point is outside its domain.

    torch raises RuntimeError itself for a probability above 1, and its subclass for a matrix that is not definite.
    Other subclasses say that the memory or the process ended.
    """
    return isinstance(error, OUTSIDE_DOMAIN) or type(error).__name__ in ("RuntimeError", "_LinAlgError", "LinAlgError")


def finite_difference(
    rule: Rule, *, name: str = DIFFERENCES, most: int = MOST_MEASURED, up_to: int = MOST_DIFFERENCES
) -> Rule:
    """Make an oracle of the primal of ``rule``: its cotangents are `Enclosure`s. The rule's pullback is not used.

    Each entry costs about 20 evaluations of the primal. Of more than ``up_to`` entries some are measured, spread
    evenly; the radius of the others is infinite. For those see `oracles.decision.directions`.

    Args:
        rule: the rule.
        name: what results call the oracle.
        most: how many entries are measured where not all are.
        up_to: of how many inputs every entry is measured.
    """
    quick = repeated(rule)

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        y, _ = rule(**primals)

        def pullback(delta: Output) -> dict[str, Enclosure]:
            measured = measured_entries(primals, most, up_to)
            return {n: differences_at(entries, n, quick, primals, delta) for n, entries in measured.items()}

        return y, pullback

    return Rule(
        evaluate, name, implementation=quick, adapt=partial(finite_difference, name=name, most=most, up_to=up_to)
    )


def remembering(rule: Rule) -> Rule:
    """Return a rule whose primal is evaluated once at each point, while memory suffices: deltas share the points."""
    known: dict[bytes, Output] = {}
    left = [REMEMBERED_BYTES]

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        if left[0] <= 0 or any(a.dtype.kind == "O" for a in primals.values()):
            return rule.evaluate(**primals)
        key = digest_of(*primals.values())
        if key not in known:
            known[key] = y = rule.evaluate(**primals)[0]
            left[0] -= sum(np.asarray(part).nbytes for part in as_tuple(y))
        return known[key], lambda delta: {}

    return replace(rule, evaluate=evaluate, derived=Derived(evaluate, primal=rule.derivatives.primal))


def digest_of(*arrays: Array) -> bytes:
    """Return a digest of the shapes and values of arrays."""
    digest = sha256()
    for a in arrays:
        digest.update(repr(np.shape(a)).encode() + np.ascontiguousarray(a).tobytes())
    return digest.digest()


def differences_along(
    rule: Rule, primals: Primals, direction: Primals, *, most: int = MOST_MEASURED
) -> list[Enclosure]:
    """Return the directional derivative of every floating output, entry by entry; of many entries some are measured.

    Args:
        rule: the rule, whose primal alone is used.
        primals: the point, which should be float64.
        direction: arrays in the shapes of some of the primals.
        most: how many entries of each output are measured; the radius of the others is infinite.
    """
    rule = remembering(rule)
    parts = [np.asarray(part) for part in as_tuple(rule(**primals)[0])]
    enclosures = []
    for i, part in enumerate(parts):
        if not is_differentiable(part):
            continue
        slopes = np.full((2, part.size), np.inf)
        slopes[0] = np.nan
        for k in np.unique(np.linspace(0, part.size - 1, min(most, part.size)).round().astype(int)):
            weights = [np.zeros(p.shape) for p in parts]
            weights[i].flat[k] = 1.0
            slopes[:, k] = directional_derivative(rule, primals, tuple(weights), direction, narrow=True)
        enclosures.append(Enclosure(*slopes.reshape(2, *part.shape)))
    return enclosures


def measured_entries(primals: Primals, most: int = MOST_MEASURED, up_to: int = MOST_DIFFERENCES) -> dict[str, Array]:
    """Return the entries of each floating primal that finite differences measure one by one; flat indices."""
    sizes = {n: np.size(a) for n, a in primals.items() if is_differentiable(a)}
    total = sum(sizes.values())
    if total <= up_to:
        return {n: np.arange(size) for n, size in sizes.items()}
    # Each takes longer the more inputs there are.
    count = min(max(DIFFERENCES_OF_MILLION * 10**6 // total, DIFFERENCES_OF_MILLION), most)
    shares = {n: min(size, max(1, count * size // total)) for n, size in sizes.items()}
    return {n: np.unique(np.linspace(0, size - 1, shares[n]).round().astype(int)) for n, size in sizes.items()}


def differences_at(entries: Array, name: str, rule: Rule, primals: Primals, delta: Output) -> Enclosure:
    """Return finite differences in some entries of a primal, as flat indices, and an infinite radius elsewhere."""
    shape = np.shape(primals[name])
    slopes = np.full((2, np.size(primals[name])), np.inf)
    slopes[0] = np.nan
    # At an infinite primal there is no step.
    movable = entries[np.isfinite(np.ravel(primals[name])[entries])]
    for i, k in enumerate(movable):
        if is_out_of_time():
            note(f"{name}: {i} of {len(movable)} entries measured by finite differences, out of time")
            break
        announce(None, f"finite difference {i + 1} of {len(movable)} in {name}")
        direction = np.zeros(slopes.shape[1])
        direction[k] = 1.0
        own = abs(float(np.ravel(primals[name])[k]))
        slopes[:, k] = directional_derivative(rule, primals, delta, {name: direction.reshape(shape)}, own=own)
    return Enclosure(*slopes.reshape(2, *shape))


def directional_derivative(
    rule: Rule, primals: Primals, delta: Output, direction: Primals, *, narrow: bool = False, own: float = 0.0
) -> tuple[float, float]:
    """Return ``d/dt ⟨delta, f(primals + t·direction)⟩`` at t = 0, and a radius that bounds its error.

    By the adjoint identity this is ``⟨Jᵀ delta, direction⟩``, so it tests a pullback with nothing but the primal.

    Args:
        rule: the Rule whose primal is differentiated.
        primals: the point, which should be float64.
        delta: the cotangent of the output.
        direction: arrays in the shapes of some of the primals.
        narrow: whether shorter steps are tried where the radius is infinite: a direction of many entries crosses a kink
            of one of them within most steps.
        own: the size of the entry that the direction moves, if it is one: where it is far smaller than the others, a
            step of its own size must not contradict the result.

    Returns:
        Slope and radius. The radius is infinite at a kink, where the domain ends within every step, and where an output
        that depends on the direction is infinite or NaN.
    """
    line = _Line(rule, primals, delta, direction)
    if np.isnan(line.size) or line.moves_an_infinite_output():
        return 0.0, np.inf
    with np.errstate(all="ignore"):
        step = line.first_step()
        for nearer in DIFFERENCE_NEARER:
            try:
                slope, radius = _on_a_ladder(line.slopes, step * nearer, DIFFERENCE_STEP * own, line.is_tiny)
            except (*OUTSIDE_DOMAIN, RuntimeError) as error:
                if not leaves_domain(error):
                    raise
                continue  # the domain, or the radius of convergence, ends within the step
            if np.isfinite(radius) or not narrow:
                return slope, radius
    return 0.0, np.inf


class _Line:
    """The primal of a rule along a line, ``t ↦ f(primals + t·direction)``, weighted by delta.

    All outputs are one vector: a few operations on it cost less than some for each.
    """

    def __init__(self, rule: Rule, primals: Primals, delta: Output, direction: Primals) -> None:
        self.rule, self.primals, self.direction = rule, primals, direction
        self.weights = _flat(delta)
        with np.errstate(all="ignore"):
            self.middle, self.size = self.outputs(0.0)

    def first_step(self) -> float:
        """Return the largest step: a power of two, `DIFFERENCE_STEP` of the size of the primals."""
        names = [name for name, d in self.direction.items() if np.any(d)]
        primals = [self.primals[name] for name in names]
        size = max((float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))) for a in primals), default=1.0)
        unit = max((float(np.max(np.abs(self.direction[name]))) for name in names), default=1.0)
        unit = max(unit, SMALLEST_NORMAL)  # along subnormal numbers a step would be infinite
        return DIFFERENCE_STEP * (2.0 ** round(float(np.log2(size))) if size > LEAST_SIZE else LEAST_SIZE) / unit

    @property
    def is_tiny(self) -> bool:
        """Whether all numbers that may be moved are far smaller than the shortest step of a ladder."""
        moved = [a for name, a in self.primals.items() if np.any(self.direction.get(name, 0.0))]
        return all(float(np.max(np.abs(a), initial=0.0)) < TINY_SIZE for a in moved)

    def outputs(self, t: float) -> tuple[Array, float]:
        """Return f(primals + t·direction), and the size of the terms of ⟨delta, f⟩ there."""
        point = {n: a if n not in self.direction else a + t * self.direction[n] for n, a in self.primals.items()}
        y = _flat(self.rule(**point)[0])
        terms = np.abs(self.weights * y)
        # An output of −∞ that stays so has no slope; it must not hide those of the others.
        size = float(terms.sum())
        return y, size if np.isfinite(size) else float(np.sum(terms, where=~np.isinf(y)))

    def moves_an_infinite_output(self) -> bool:
        """Return whether an infinite output depends on what the direction moves, whatever its weight: 0 · ∞ is unknown.

        Near the point that does not show: ∞ stays ∞. So other values are tried, which most functions take.
        """
        infinite = np.isinf(self.middle)
        if not infinite.any():
            return False
        rng, step = np.random.default_rng(0), ORDINARY_VALUES[0] / 2
        floating = [n for n, a in self.primals.items() if is_differentiable(a)]
        ordinary = dict(self.primals) | {n: rng.uniform(*ORDINARY_VALUES, self.primals[n].shape) for n in floating}
        moved = ordinary | {n: ordinary[n] + step * (d != 0) for n, d in self.direction.items()}
        try:
            with np.errstate(all="ignore"):
                one, other = (_flat(self.rule(**point)[0]) for point in (ordinary, moved))
        except (*OUTSIDE_DOMAIN, RuntimeError) as error:
            if not leaves_domain(error):
                raise
            return True  # nothing is known
        return bool(np.any((one != other)[infinite]))

    def slopes(self, t: float) -> tuple[float, float, float]:
        """Return the central slope at step t, how far the one-sided slopes are from it, and the rounding in either."""
        (up, size_up), (down, size_down) = self.outputs(t), self.outputs(-t)
        if np.isfinite(self.size) and not (np.isfinite(size_up) and np.isfinite(size_down)):
            raise FloatingPointError("the primal is not finite next to the point")
        ahead, behind = _difference(up, self.middle), _difference(down, self.middle)
        slope = float(np.sum(self.weights * _difference(up, down))) / (2 * t)
        gap = float(np.sum(np.abs(self.weights * (ahead + behind)))) / (2 * t)
        rounding = ((size_up + size_down) * ROUNDOFF + SMALLEST_NORMAL) / (2 * t) + SMALLEST
        return slope, gap, rounding


def _flat(parts: Output) -> Array:
    """Return all outputs, or their cotangents, in one vector of float64."""
    arrays = [np.asarray(part, np.float64).ravel() for part in as_tuple(parts)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _difference(a: Array, b: Array) -> Array:
    """Return a − b, which is 0 between equal infinities."""
    difference = a - b
    return difference if np.isfinite(difference).all() else np.where(a == b, 0.0, difference)


def _on_a_ladder(
    slopes_at: Callable[[float], tuple[float, float, float]], step: float, least: float = 0.0, is_tiny: bool = False
) -> tuple[float, float]:
    """Return the slope extrapolated from a ladder of steps, and its radius: infinite where probes contradict it.

    ``least`` is a further probe, where it is smaller than the others. Where all numbers are tiny, no other probe is
    near the point, and what the rounding of this one hides is unknown.
    """
    ladder = [slopes_at(step / DIFFERENCE_RATIO**k) for k in range(DIFFERENCE_STEPS)]
    slopes, gaps, roundings = zip(*ladder, strict=True)
    if not _settles(slopes, roundings):
        raise FloatingPointError("the steps are longer than the radius of convergence")
    slope, radius = _extrapolated(slopes, roundings, first_power=2)
    gap, gap_radius = _extrapolated(gaps, roundings, first_power=1)
    probes = [slopes_at(step * probe) for probe in DIFFERENCE_PROBES]
    if SMALLEST_NORMAL < least < step * min(DIFFERENCE_PROBES):
        probes.append(slopes_at(least))
    contradicted = any(not abs(s - slope) <= radius + DIFFERENCE_SAFETY * g + 2 * r for s, g, r in probes)
    # The gap of a smooth function shrinks with the step: where it grows, the point is a pole, or off the others.
    grows = gaps[-1] > gaps[0] + DIFFERENCE_SAFETY * roundings[-1]
    if gap > gap_radius or grows or contradicted:
        return float(slope), np.inf
    # A probe that its gap alone excuses confirms the slope no better than it agrees: steps longer than a bend miss it.
    off = max(abs(s - slope) - 2 * r for s, _, r in probes)
    # What the first probe's rounding hides, the steps of the ladder may have missed.
    hidden = probes[-1][2] if is_tiny and len(probes) > len(DIFFERENCE_PROBES) else 0.0
    return float(slope), float(max(radius, off, hidden) + probes[0][2])


def _settles(slopes: Sequence[float], roundings: Sequence[float]) -> bool:
    """Return whether the slopes change most between the first steps, as those of a convergent series do.

    An inverse of condition number κ has a pole at a relative distance of 1/κ: along longer steps its slopes grow.
    """
    changes = np.abs(np.diff(slopes))
    k = int(np.argmax(changes))
    return bool(k < SETTLED_FROM or changes[k] <= DIFFERENCE_SAFETY * (roundings[k] + roundings[k + 1]))


def _extrapolated(values: Sequence[float], roundings: Sequence[float], first_power: int) -> tuple[float, float]:
    """Extrapolate a series in h^p, h^{p+2}, … by Neville's tableau: return the entry closest to those around it.

    Its radius is `DIFFERENCE_SAFETY` times the largest difference from its neighbours and from two rows before: one
    small difference may be luck.
    """
    best, radius = 0.0, np.inf
    rows: list[list[float]] = []
    for value, rounding in zip(values, roundings, strict=True):
        new = [value]
        for j, before in enumerate(rows[-1] if rows else []):
            new.append(new[j] + (new[j] - before) / (DIFFERENCE_RATIO ** (first_power + 2 * j) - 1))
        for j in range(2, len(new)):
            neighbours = (new[j - 1], rows[-1][j - 1], rows[-2][j - 2])
            spread = DIFFERENCE_SAFETY * (max(abs(new[j] - n) for n in neighbours) + 2 * rounding)
            if spread < radius:
                best, radius = new[j], spread
        rows.append(new)
    return best, radius
