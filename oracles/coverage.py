"""What a search has drawn, and so what it has not: sizes, ties, special values, magnitudes, cotangents, layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import floor, log10
from typing import Any

import ml_dtypes
import numpy as np

from oracles.constants import COVERAGE_ENTRIES
from oracles.registry import Case
from oracles.rule import Array, as_tuple, is_differentiable
from oracles.strategies import Point

# What is counted in points, by its name in reports.
KINDS = (
    "ties",
    "ties between primals",
    "shared arrays",
    "-0.0",
    "subnormal",
    "-inf",
    "zeros in delta",
)


@dataclass
class Coverage:
    """Counts what a search has drawn.

    Attributes:
        points: how many points are counted.
        shapes: the distinct shapes of all primals together.
        largest: the largest extent of each axis of each primal, by the primal's name.
        counts: the number of points of each of `KINDS`.
        magnitudes: the smallest and the largest finite absolute value in a primal, zeros left out.
        deltas: the same of the cotangents.
        layouts: the memory layouts.
        extents: the number of points by their longest axis, rounded down to a power of two.
        decades: the number of points by their largest finite value, as a power of ten, rounded down.
    """

    points: int = 0
    shapes: set[Hashable] = field(default_factory=set)
    largest: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    magnitudes: tuple[float, float] = (np.inf, 0.0)
    deltas: tuple[float, float] = (np.inf, 0.0)
    layouts: set[str] = field(default_factory=set)
    extents: Counter[int] = field(default_factory=Counter)
    decades: Counter[int] = field(default_factory=Counter)

    def add(self, case: Case, point: Point) -> None:
        """Count one point."""
        self.points += 1
        self.layouts.add(point.layout)
        self.shapes.add(tuple((n, a.shape) for n, a in point.primals.items()))
        for name, a in point.primals.items():
            known = self.largest.get(name, [])
            more = [0] * (a.ndim - len(known))
            sizes = [*a.shape, *[0] * (len(known) - a.ndim)]
            self.largest[name] = [max(pair) for pair in zip([*known, *more], sizes, strict=True)]
        longest = max((extent for a in point.primals.values() for extent in a.shape), default=1)
        self.extents[1 << (longest.bit_length() - 1) if longest else 0] += 1
        reals = [a for n, a in point.primals.items() if case.primals[n].special and is_differentiable(a) and a.size]
        deltas = [d for d in map(np.asarray, as_tuple(point.delta)) if d.size and is_differentiable(d)]
        if reals:
            self.magnitudes = _joined(self.magnitudes, self._count(reals))
        if deltas:
            absolute = np.abs(_flat(deltas))
            self.counts["zeros in delta"] += bool(np.any(absolute == 0))
            self.deltas = _joined(self.deltas, _range(absolute))

    def _count(self, reals: list[Array]) -> tuple[float, float]:
        """Count the special values of a point's primals, and return the range of their magnitudes."""
        flat = _flat(reals)
        sizes = np.abs(flat)
        known = _range(sizes)
        if known[1]:
            self.decades[floor(log10(known[1]))] += 1
        # Most points have none of these, so each is looked for only where it is possible.
        self.counts["-0.0"] += known[2] and bool(np.any(np.signbit(flat[sizes == 0])))
        self.counts["subnormal"] += bool(known[0] < ml_dtypes.finfo(reals[0].dtype).smallest_normal)
        self.counts["-inf"] += bool(np.any(flat == -np.inf))
        self.counts["shared arrays"] += any(a is b for i, a in enumerate(reals) for b in reals[:i])
        if flat.size <= COVERAGE_ENTRIES:
            distinct = [_distinct(np.ravel(a)) for a in reals]
            self.counts["ties"] += sum(distinct) < flat.size
            self.counts["ties between primals"] += len(reals) > 1 and _distinct(flat) < sum(distinct)
        return known[:2]

    def merge(self, other: Coverage) -> None:
        """Add what another search has drawn."""
        self.points += other.points
        self.shapes |= other.shapes
        self.layouts |= other.layouts
        self.extents += other.extents
        self.decades += other.decades
        for name, sizes in other.largest.items():
            known = self.largest.get(name, [])
            length = max(len(known), len(sizes))
            both = ([*each, *[0] * (length - len(each))] for each in (known, sizes))
            self.largest[name] = [max(pair) for pair in zip(*both, strict=True)]
        for name, number in other.counts.items():
            self.counts[name] += number
        self.magnitudes = _joined(self.magnitudes, other.magnitudes)
        self.deltas = _joined(self.deltas, other.deltas)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON's types."""
        return {
            "points": self.points,
            "shapes": len(self.shapes),
            "largest": dict(self.largest),
            "counts": dict(self.counts),
            "magnitudes": _finite(self.magnitudes),
            "deltas": _finite(self.deltas),
            "layouts": sorted(self.layouts),
            "extents": {str(extent): self.extents[extent] for extent in sorted(self.extents)},
            "decades": {str(power): self.decades[power] for power in sorted(self.decades)},
        }

    def __str__(self) -> str:
        """Return one line."""
        sizes = ", ".join(f"{n} {'×'.join(map(str, each)) or '()'}" for n, each in self.largest.items())
        missing = [name for name, number in self.counts.items() if not number]
        shapes = "1 shape" if len(self.shapes) == 1 else f"{len(self.shapes)} shapes"
        line = f"{shapes}, at most {sizes}"
        for what, pair in (("values", self.magnitudes), ("|delta|", self.deltas)):
            if _finite(pair):
                line += f"; {what} {pair[0]:.0e} … {pair[1]:.0e}"
        return line + (f"; not drawn: {', '.join(missing)}" if missing else "")


def _flat(arrays: list[Array]) -> Array:
    return np.concatenate([np.ravel(a) for a in arrays])


def _distinct(values: Array) -> int:
    """Return the number of distinct values."""
    ordered = np.sort(values)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def _range(sizes: Array) -> tuple[float, float, bool]:
    """Return the smallest and the largest of these absolute values that are finite and not 0, and whether any is 0."""
    counted = sizes[(sizes > 0) & (sizes < np.inf)]
    zeros = bool(np.any(sizes == 0))
    return (float(counted.min()), float(counted.max()), zeros) if counted.size else (np.inf, 0.0, zeros)


def _joined(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


def _finite(pair: tuple[float, float]) -> list[float]:
    return list(pair) if pair[0] <= pair[1] else []
