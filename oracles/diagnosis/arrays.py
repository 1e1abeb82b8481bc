"""Comparisons of arrays within a tolerance, entry by entry, and sets of axes."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from oracles.diagnosis.constants import ROUGH_AGREEMENT
from oracles.rule import Array

Axes = tuple[int, ...]


def agrees(actual: Array, expected: Array, tolerance: Array) -> bool:
    """Return whether two arrays have one shape and agree in every entry within a finite tolerance; NaN never does."""
    comparable = np.shape(actual) == np.shape(expected) and bool(np.all(np.isfinite(tolerance)))
    return comparable and bool(np.all(np.abs(actual - expected) <= tolerance))


def roughly_agrees(actual: Array, expected: Array) -> bool:
    """Return whether two arrays of one shape are so close that their tolerance is worth computing."""
    if np.shape(actual) != np.shape(expected):
        return False
    return bool(np.linalg.norm(actual - expected) <= ROUGH_AGREEMENT * np.linalg.norm(actual))


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether an array of one shape can be broadcast to another shape."""
    return len(shape) <= len(target) and all(n in (1, m) for n, m in zip(shape[::-1], target[::-1], strict=False))


def spread_over(array: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast an array over a shape; axes that it lacks are added at the end, or else at the front.

    If it fits neither way (a mask of attention scores, say), its largest entry stands for all of it.
    """
    if array.shape == shape[: array.ndim]:
        return np.broadcast_to(array.reshape(*array.shape, *(1,) * (len(shape) - array.ndim)), shape)
    fits = broadcasts_to(array.shape, shape)
    return np.broadcast_to(array if fits else array.max(initial=array.dtype.type(0)), shape)


def least_squares_factor(
    actual: Array, along: Array, tolerance: Array, axes: Axes | None = None
) -> tuple[Array, Array]:
    """Return k with ``actual ≈ k·along``, and how far the tolerance of ``actual`` may move k.

        k = Σ actual·along / Σ along²        uncertainty = Σ tolerance·|along| / Σ along²

    Args:
        actual, along, tolerance: arrays of one shape.
        axes: the axes of the sums, which gives one k for each slice along the others; ``None`` gives one k for all.
    """
    keepdims = axes is not None
    square = np.sum(along * along, axis=axes, keepdims=keepdims)
    k = np.sum(actual * along, axis=axes, keepdims=keepdims) / square
    return k, np.sum(tolerance * np.abs(along), axis=axes, keepdims=keepdims) / square


def axis_subsets(ndim: int) -> list[Axes]:
    """Return every set of at least one axis, the small ones first."""
    return [axes for k in range(1, ndim + 1) for axes in combinations(range(ndim), k)]


def axes_text(axes: Axes) -> str:
    """Return "axis 0" or "axes 0, 1"."""
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"
