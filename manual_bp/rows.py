"""Any axis of any array as the columns of a matrix: what the derivation says of rows then holds along it."""

from __future__ import annotations

import numpy as np

from .protocol import Array


def rows_along(x: Array, axis: int) -> Array:
    """Return x as a matrix (N, n), n the extent of the axis: x itself or a view of it where that is possible."""
    if x.ndim == 2 and axis in (1, -1):
        return x
    moved = np.moveaxis(x, axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def array_of(rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Return such a matrix as the array of this shape that it stands for."""
    if len(shape) == 2 and axis in (1, -1):
        return rows
    axis %= len(shape)
    return np.moveaxis(rows.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis]), -1, axis)
