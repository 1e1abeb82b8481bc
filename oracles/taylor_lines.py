"""The remainder of a function along a line, its slope, and how far rounding and truncation can move that slope.

Of a function φ of many numbers, with the claimed derivative g at x, the remainder along v is

    ρ(t) = φ(x_t) − φ(x) − ⟨g, x_t − x⟩,        x_t = x + t·v rounded to the dtype of x.

It has the displacement that rounding has left, so that the rounding of the argument does not count. Its slope at 0 is
⟨∇φ − g, v⟩, the error of g. Central differences over a ladder of steps are extrapolated, as in
`oracles.finite_differences`; the rounding of φ itself is measured by tables of differences at the steps that are used
(Hamming; Moré & Wild 2011, "Estimating computational noise"), since no operation inside φ is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import factorial

import numpy as np

from oracles.constants import (
    CONTRADICTIONS,
    DIFFERENCE_RATIO,
    DIFFERENCE_SAFETY,
    LEAST_SIZE,
    LONG_RANGE,
    NOISE_ORDERS,
    NOISE_POINTS,
    NOISE_ROUNDS,
    ROUGH_SAFETY,
    SMOOTH_DECAY,
    TAYLOR_MOVEMENT,
    TAYLOR_NOISE,
    TAYLOR_STEP,
    TAYLOR_STEPS,
)
from oracles.finite_differences import SMALLEST_NORMAL
from oracles.rule import Array

Arrays = Mapping[str, Array]


class Line:
    """The remainder of a function along a line.

    Attributes:
        claimed: ⟨g, v⟩, the slope that the gradient claims.
        start: φ(x).
    """

    def __init__(
        self,
        function: Callable[[Arrays], float],
        claimed_change: Callable[[float, Arrays], float],
        point: Arrays,
        direction: Arrays,
        start: float,
    ) -> None:
        """Make the line of a function.

        Args:
            function: φ, of arrays by name; NaN where it has no value.
            claimed_change: ⟨g, displacement⟩, of the step and the displacement.
            point: x, all arrays.
            direction: v, arrays in the shapes of some of the point's.
            start: φ(x).
        """
        self._function, self._claimed_change = function, claimed_change
        self.point, self.direction, self.start = point, direction, start
        self._wide = {n: np.asarray(point[n], np.float64) for n in direction}
        self._square = sum(float(np.vdot(v, v)) for v in direction.values())
        self.claimed = claimed_change(1.0, direction)
        self._known: dict[float, tuple[float, float, float]] = {0.0: (0.0, 0.0, 0.0)}

    def remainder(self, t: float) -> float:
        """Return ρ(t); NaN where the function has no finite value."""
        return self._at(t)[0]

    def change(self, t: float) -> float:
        """Return φ(x_t) − φ(x)."""
        return self._at(t)[1]

    def moves(self, t: float) -> bool:
        """Return whether x_t − x is t·v but for a small part: in float32, a short step is rounded away."""
        return abs(self._at(t)[2] - 1) <= TAYLOR_MOVEMENT

    def evaluations(self) -> int:
        """Return how many times the function was called."""
        return len(self._known) - 1

    def _at(self, t: float) -> tuple[float, float, float]:
        if t not in self._known:
            moved = {
                n: (self._wide[n] + t * v).astype(self.point[n].dtype, copy=False) for n, v in self.direction.items()
            }
            displacement = {n: a.astype(np.float64, copy=False) - self._wide[n] for n, a in moved.items()}
            along = sum(float(np.vdot(self.direction[n], d)) for n, d in displacement.items())
            change = self._function({**self.point, **moved}) - self.start
            remainder = change - self._claimed_change(t, displacement)
            self._known[t] = (
                (remainder, change, along / (t * self._square))
                if np.isfinite(remainder)
                else (np.nan, np.nan, along / (t * self._square))
            )
        return self._known[t]

    def first_step(self) -> float:
        """Return the largest step: a power of two, `TAYLOR_STEP` of the size of the point."""
        size = max(float(np.sqrt(np.mean(a * a))) if a.size else 0.0 for a in self._wide.values())
        entries = sum(v.size for v in self.direction.values())
        unit = max(float(np.sqrt(self._square / max(entries, 1))), SMALLEST_NORMAL)
        return TAYLOR_STEP * 2.0 ** round(float(np.log2(max(size, LEAST_SIZE) / unit)))


@dataclass(frozen=True)
class Slope:
    """The slope of a remainder at 0: the error of a gradient along a direction.

    Attributes:
        error: ⟨∇φ − g, v⟩, extrapolated.
        tolerance: how far truncation and rounding can move it; infinite where no range of steps converges.
        claimed: ⟨g, v⟩.
        step: the smallest step that the error comes from.
        noise: the rounding of φ at these steps.
        rounding: the share of the tolerance that is rounding and not truncation.
        gap: by how much the one-sided slopes differ from the central one, extrapolated; 0 where that vanishes.
        kink: whether the gap stays down to the smallest steps: a kink at the point itself.
        tables: the noise that it was measured with.
        steps: the ladder.
        evaluations: how many values of φ it took.
    """

    error: float
    tolerance: float
    claimed: float
    step: float
    noise: float
    rounding: float
    gap: float
    kink: bool
    tables: Noise
    steps: tuple[float, ...]
    evaluations: int

    @property
    def refuses(self) -> bool:
        """Whether the error is none of truncation and rounding."""
        return abs(self.error) > self.tolerance

    @property
    def measured(self) -> float:
        """⟨∇φ, v⟩, from differences."""
        return self.claimed + self.error


@dataclass
class Noise:
    """The rounding of a function, by the scale at which it was measured.

    Attributes:
        floor: the rounding of the value itself, u·|φ|.
        tables: the standard deviation by the scale of a table of differences.
    """

    floor: float
    tables: dict[float, float] = field(default_factory=dict)

    def at(self, step: float) -> float:
        """Return the noise at a step: the largest of the tables at this scale and smaller ones.

        A kink in reach of a table looks like noise, so larger tables say nothing of smaller steps, unless there is no
        other.
        """
        within = [sigma for scale, sigma in self.tables.items() if scale <= step]
        nearest = [self.tables[min(self.tables)]] if self.tables else []
        return max(self.floor, *(within or nearest), self.floor)

    def measure(self, line: Line, step: float) -> None:
        """Measure the noise at the scale of a step, by a table of differences over [−step, step]."""
        half = NOISE_POINTS // 2
        values = np.array([line.remainder(i * step / half) for i in range(-half, half + 1)])
        if not np.all(np.isfinite(values)):
            self.tables[step] = np.inf
            return
        scales = []
        for order in NOISE_ORDERS:
            # The k-th difference of independent errors of variance σ² has the variance σ² (2k)! / (k!)².
            share = factorial(order) ** 2 / factorial(2 * order)
            scales.append(float(np.sqrt(share * np.mean(np.diff(values, order) ** 2))))
        self.tables[step] = max(scales)


def ladder(line: Line, first: float, floor: float, most: int = TAYLOR_STEPS) -> tuple[float, ...]:
    """Return the steps at which the function is finite, down to where its own rounding hides the slope."""
    steps: list[float] = []
    step, radius = first, np.inf
    for _ in range(most):
        if not (line.moves(step) and line.moves(-step)):
            break
        if np.isfinite(line.remainder(step)) and np.isfinite(line.remainder(-step)):
            steps.append(step)
            radius = min(radius, _extrapolate(line, steps, [floor / h for h in steps], 2)[1])
            if TAYLOR_NOISE * floor / step > radius:
                break
        step /= DIFFERENCE_RATIO
    return tuple(steps)


def _extrapolate(line: Line, steps: list[float], roundings: list[float], power: int) -> tuple[float, float, int]:
    """Extrapolate the slope of the remainder (power 2), or the gap between its one-sided slopes (power 1)."""
    sign = -1.0 if power == 2 else 1.0
    values = [(line.remainder(h) + sign * line.remainder(-h)) / (2 * h) for h in steps]
    return limit_of(values, roundings, power)


def limit_of(values: list[float], roundings: list[float], power: int) -> tuple[float, float, int]:
    """Return the limit of a series in h^p, h^{p+2}, … over a ladder of steps, its radius, and the row that it is from.

    Where the differences of the series are seen to decay as those of a smooth function, at this row and at the one
    before, an entry of Neville's tableau has `DIFFERENCE_SAFETY` times its last correction as its truncation error,
    or the correction before, shrunk as the leading order shrinks. Elsewhere, as where a line crosses kinks, the value
    itself has `ROUGH_SAFETY` times the last three differences, shrunk as those of order 1: one may be small by luck.
    """
    ratio, best, radius, row = DIFFERENCE_RATIO, 0.0, np.inf, 0
    rows: list[list[float]] = []
    differences = [abs(b - a) for a, b in pairwise(values)]
    for k, (value, rounding) in enumerate(zip(values, roundings, strict=True)):
        new = [value]
        for j, before in enumerate(rows[-1] if rows else []):
            new.append(new[j] + (new[j] - before) / (ratio ** (power + 2 * j) - 1))
        rows.append(new)
        if k < 2 or not np.isfinite(rounding):
            continue
        spreads = [(0, ROUGH_SAFETY * max(d / ratio**i for i, d in enumerate(differences[k - 1 :: -1][:3])))]
        if _is_smooth(differences, roundings, k, power):
            for j in range(1, k):
                last, before = (abs(rows[i][j] - rows[i][j - 1]) for i in (k, k - 1))
                spreads.append((j, DIFFERENCE_SAFETY * max(last, before / ratio**power)))
        for j, spread in spreads:
            if spread + TAYLOR_NOISE * rounding < radius:
                best, radius, row = new[j], spread + TAYLOR_NOISE * rounding, k
    return best, radius, row


def _is_smooth(differences: list[float], roundings: list[float], k: int, power: int) -> bool:
    """Return whether the last two differences of a series have shrunk as those of a smooth function, or to rounding."""
    least = SMOOTH_DECAY * DIFFERENCE_RATIO**power
    pairs = [(k - 1, k - 2), (k - 2, k - 3)] if k > 2 else [(k - 1, k - 2)]
    return all(
        differences[i] <= max(differences[before] / least, TAYLOR_NOISE * roundings[i + 1]) for i, before in pairs
    )


def slope_of(line: Line, first: float, noise: Noise, extra: float = 0.0, most: int = TAYLOR_STEPS) -> Slope:
    """Return the slope of the remainder at 0, with a derived tolerance.

    Args:
        line: the line.
        first: the largest step.
        noise: the rounding of the function; tables at the steps that are used are added to it.
        extra: the tolerance's part that no step changes: the rounding of the claimed slope.
        most: the number of steps.
    """
    steps = list(ladder(line, first, noise.floor, most))
    error, radius, row = 0.0, np.inf, 0
    for _ in range(NOISE_ROUNDS):
        error, radius, row = _extrapolate(line, steps, [noise.at(h) / h for h in steps], 2)
        if not np.isfinite(radius) or steps[row] in noise.tables:
            break
        noise.measure(line, steps[row])
    step = steps[row] if steps else first
    level = noise.at(step)
    rounding = TAYLOR_NOISE * level / step + extra
    tolerance = radius + extra
    gap, is_kink = _kink(line, steps, noise.floor)
    return Slope(
        error=float(error),
        tolerance=float(tolerance),
        claimed=line.claimed,
        step=step,
        noise=level,
        rounding=float(min(1.0, rounding / tolerance)) if 0 < tolerance < np.inf else 0.0,
        gap=gap,
        kink=is_kink,
        tables=noise,
        steps=tuple(steps),
        evaluations=line.evaluations(),
    )


def _kink(line: Line, steps: list[float], floor: float) -> tuple[float, bool]:
    """Return the gap between the central and the one-sided slopes, and whether it stays down to the smallest steps.

    The noise is that of the smallest step: in a table over a kink, the kink itself looks like noise.
    """
    gap, radius, _ = _extrapolate(line, steps, [floor / h for h in steps], 1)
    if abs(gap) <= radius:
        return 0.0, False
    noise = Noise(floor)
    noise.measure(line, steps[-1])
    gap, radius, _ = _extrapolate(line, steps, [noise.at(h) / h for h in steps], 1)
    if abs(gap) <= radius:
        return 0.0, False
    return float(abs(gap)), _range_of(line, steps, noise, float(abs(gap)), 1) >= LONG_RANGE


def is_persistent(line: Line, slope: Slope) -> bool:
    """Return whether an error stays over a long range of steps, so that no narrow feature of f explains it."""
    # The noise is that of the end of the range: larger tables may lie over kinks.
    noise = Noise(slope.tables.floor)
    noise.measure(line, slope.steps[0] * DIFFERENCE_RATIO**-LONG_RANGE)
    return _range_of(line, list(slope.steps), noise, slope.error, 2) >= LONG_RANGE


def _range_of(line: Line, steps: list[float], noise: Noise, limit: float, power: int) -> int:
    """Return over how many steps in a row a slope or gap is its limit up to half of it, down to where noise hides it.

    0 if it is something else at a smaller step: then the limit is that of a larger scale.
    """
    sign = -1.0 if power == 2 else 1.0
    count, step = 0, steps[0]
    for _ in range(TAYLOR_STEPS):
        if TAYLOR_NOISE * noise.at(step) / step >= abs(limit) / 2 or not (line.moves(step) and line.moves(-step)):
            break
        value = (line.remainder(step) + sign * line.remainder(-step)) / (2 * step)
        value = abs(value) if power == 1 else value
        if abs(value - limit) <= abs(limit) / 2:
            count += 1
        elif not np.isnan(value):
            count = 0
        step /= DIFFERENCE_RATIO
    return count


def is_contradicted(line: Line, slope: Slope) -> bool:
    """Return whether f has the claimed slope at the smallest steps: a staircase, a feature narrower than the others.

    Smaller than the rounding of the value these steps are not: what is off at larger ones is not the gradient alone.
    """
    run, step, half = 0, slope.steps[0], abs(slope.error) / 2
    while TAYLOR_NOISE * slope.tables.floor / step < half and step > slope.steps[0] * DIFFERENCE_RATIO**-TAYLOR_STEPS:
        if not (line.moves(step) and line.moves(-step)):
            break
        run = run + 1 if abs(line.remainder(step) - line.remainder(-step)) / (2 * step) <= half else 0
        step /= DIFFERENCE_RATIO
    return run >= CONTRADICTIONS


def short_slope(line: Line, step: float, noise: Noise) -> tuple[float, float]:
    """Return the slope of the remainder and its tolerance from two steps, of which the range is known to converge."""
    steps = (step, step / DIFFERENCE_RATIO)
    first, second = ((line.remainder(h) - line.remainder(-h)) / (2 * h) for h in steps)
    square = DIFFERENCE_RATIO**2
    value = second + (second - first) / (square - 1)
    tolerance = DIFFERENCE_SAFETY * abs(second - first) / square + TAYLOR_NOISE * noise.at(step) / steps[1]
    return (float(value), float(tolerance)) if np.isfinite(tolerance) else (0.0, np.inf)
