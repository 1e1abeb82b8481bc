"""Recognize the error of an iteration that stops at a tolerance: small, smooth nearby, with jumps farther away.

A jump is where the number of steps changes, and the reference does not jump there. An iteration of a fixed number of
steps has none, and is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from oracles.constants import (
    BISECTIONS,
    EXPERIMENT_SEED,
    LEAST_JUMP,
    MOST_PATH_POINTS,
    MOST_SMOOTH_CHANGE,
    PATH_LENGTH,
    PATH_POINTS,
    ROUGH_AGREEMENT,
    SMOOTH_STEP,
)
from oracles.rule import Array, Output, Primals, is_differentiable, map_delta
from oracles.time_budget import require_time


class Compared(NamedTuple):
    """An error of the subject, and the oracle's value, at one point."""

    error: Array
    expected: Array

    @property
    def share(self) -> float:
        """The error as a share of the value; infinite where that is zero."""
        error, value = float(np.linalg.norm(self.error)), float(np.linalg.norm(self.expected))
        return error / value if value else float("inf") if error else 0.0


# The comparison at another point; None where a side raises or is not finite.
CompareAt: TypeAlias = Callable[[Primals, Output], "Compared | None"]


def is_small(compared: Compared | None) -> bool:
    """Return whether the error is a small part of the value, and not zero."""
    return compared is not None and bool(0 < compared.share <= ROUGH_AGREEMENT)


def change_nearby(
    primals: Primals, delta: Output, compare_at: CompareAt, step: float, names: Collection[str] | None = None
) -> float:
    """Return how much the error changes over a small step, as a share of the error; infinite if unknown.

    ``names`` are the primals that move; by default all do.
    """
    rng = np.random.default_rng((EXPERIMENT_SEED, 7))

    def move(array: Array) -> Array:
        return array * (1 + step * rng.uniform(0.5, 1, np.shape(array))) if is_differentiable(array) else array

    here = compare_at(primals, delta)
    moved = {n: move(a) if names is None or n in names else a for n, a in primals.items()}
    there = compare_at(moved, map_delta(move, delta))
    if here is None or there is None or there.error.shape != here.error.shape:
        return float("inf")
    change = float(np.linalg.norm(there.error - here.error) / np.linalg.norm(here.error))
    return change if np.isfinite(change) else float("inf")


def stops_early(primals: Primals, delta: Output, compare_at: CompareAt) -> str:
    """Return a primal along which the error jumps as that of a solver does; "" if it jumps along none.

    Args:
        primals, delta: the point, in float64.
        compare_at: returns error and expected value at another point.
    """
    if not is_small(compare_at(primals, delta)):
        return ""
    # One primal at a time: together they may leave what the solver takes, two margins of the same mass.
    for name in [n for n, a in primals.items() if is_differentiable(a) and a.size][:3]:
        is_smooth = change_nearby(primals, delta, compare_at, SMOOTH_STEP, (name,)) <= MOST_SMOOTH_CHANGE
        if is_smooth and any(_jumps(path) for path in _paths(primals, delta, compare_at, name)):
            return name
    return ""


def in_words(name: str, share: float) -> str:
    """Return the diagnosis: along which primal the error jumps, which share of the value it is, what to declare."""
    return (
        f"not converged: the error is small ({share:.1g} of the value) and smooth nearby, and jumps by about its size "
        f"where {name} moves, like that of an iteration that stops at a tolerance; solve further, or declare "
        f"{declaration(share)}"
    )


def declaration(share: float) -> str:
    """Return the line that declares an error of that share of the value."""
    return f"oracles.declared(subject, solved_to={share:.0e})"


Path: TypeAlias = Callable[[float], "Compared | None"]


def _paths(primals: Primals, delta: Output, compare_at: CompareAt, name: str) -> Iterator[Path]:
    """Yield lines along which one primal moves: towards zero, and at random."""
    a, rng = primals[name], np.random.default_rng((EXPERIMENT_SEED, 8))
    for direction in (-np.ones(a.shape), rng.uniform(-1, 1, a.shape)):

        def path(t: float, direction: Array = direction) -> Compared | None:
            require_time()
            return compare_at({**primals, name: a * (1 + t * direction)}, delta)

        yield path


def _jumps(path: Path) -> bool:
    """Return whether the error jumps somewhere along a path while the oracle does not."""
    points = np.linspace(0, PATH_LENGTH, PATH_POINTS).tolist()
    compared = []
    for t in points:
        compared.append(path(t))
        if not is_small(compared[-1]):
            return False
    # Parts of the path over which the error changes, with the number of halvings that are left.
    parts = [(*ab, *xy, BISECTIONS) for ab, xy in zip(pairwise(points), pairwise(compared), strict=True)]
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
        there = path(middle)
        parts += [(low, middle, first, there, left - 1), (middle, high, there, last, left - 1)]
    return False


def _size(compared: Compared | None) -> float:
    return float(np.linalg.norm(compared.error)) if compared is not None else np.inf


def _change(first: Compared | None, second: Compared | None) -> float:
    return float(np.linalg.norm(first.error - second.error)) if first is not None and second is not None else np.inf
