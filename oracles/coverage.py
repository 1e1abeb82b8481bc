"""What a search has drawn, and so what it has not: sizes, ties, special values, magnitudes, cotangents, layouts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

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
    "delta of zeros",
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
    """

    points: int = 0
    shapes: set[Hashable] = field(default_factory=set)
    largest: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    magnitudes: tuple[float, float] = (np.inf, 0.0)
    deltas: tuple[float, float] = (np.inf, 0.0)
    layouts: set[str] = field(default_factory=set)

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
        reals = [a for n, a in point.primals.items() if is_differentiable(a) and case.primals[n].special and a.size]
        deltas = [d for d in map(np.asarray, as_tuple(point.delta)) if d.size and is_differentiable(d)]
        self.magnitudes = _range(self.magnitudes, reals)
        self.deltas = _range(self.deltas, deltas)
        for name, drawn in _kinds(reals, deltas).items():
            self.counts[name] += drawn

    def merge(self, other: Coverage) -> None:
        """Add what another search has drawn."""
        self.points += other.points
        self.shapes |= other.shapes
        self.layouts |= other.layouts
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
        }

    def __str__(self) -> str:
        """Return one line."""
        sizes = ", ".join(f"{n} {'×'.join(map(str, each)) or '()'}" for n, each in self.largest.items())
        missing = [name for name, number in self.counts.items() if not number]
        line = f"{len(self.shapes)} shapes, at most {sizes}"
        for what, pair in (("values", self.magnitudes), ("|delta|", self.deltas)):
            if _finite(pair):
                line += f"; {what} {pair[0]:.0e} … {pair[1]:.0e}"
        return line + (f"; not drawn: {', '.join(missing)}" if missing else "")


def _range(known: tuple[float, float], arrays: list[Array]) -> tuple[float, float]:
    for a in arrays:
        sizes = np.abs(a)
        sizes = sizes[(sizes > 0) & np.isfinite(sizes)]
        if sizes.size:
            known = _joined(known, (float(sizes.min()), float(sizes.max())))
    return known


def _joined(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


def _finite(pair: tuple[float, float]) -> list[float]:
    return list(pair) if pair[0] <= pair[1] else []


def _kinds(reals: list[Array], deltas: list[Array]) -> dict[str, bool]:
    """Return which kinds of special values a point has; ties are looked for among a limited number of entries."""
    few = [np.unique(a) if a.size <= COVERAGE_ENTRIES else a[..., :0].ravel() for a in reals]
    together = np.concatenate(few) if few else np.zeros(0)
    return {
        "ties": any(u.size < a.size for u, a in zip(few, reals, strict=True) if a.size <= COVERAGE_ENTRIES),
        "ties between primals": np.unique(together).size < together.size,
        "shared arrays": any(a is b for i, a in enumerate(reals) for b in reals[:i]),
        "-0.0": any(bool(np.any((a == 0) & np.signbit(a))) for a in reals),
        "subnormal": any(bool(np.any((a != 0) & (np.abs(a) < np.finfo(a.dtype).smallest_normal))) for a in reals),
        "-inf": any(bool(np.any(a == -np.inf)) for a in reals),
        "zeros in delta": any(bool(np.any(d == 0)) for d in deltas),
        "delta of zeros": bool(deltas) and not any(bool(np.any(d)) for d in deltas),
    }
