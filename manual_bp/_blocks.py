"""Large arrays, computed block by block or row by row.

A pointwise formula of ten operations makes ten arrays. Of a block they fit in a core's cache; of a large array each
would be written to memory and read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ._validation import OBJECT
from .protocol import Array, Arrays, as_tuple, one_or_tuple

# Bytes of an input: its block and a few arrays like it fit in the second-level cache of a core.
_BLOCK = 1 << 18


def blocks(x: Array, size: int = _BLOCK) -> Iterator[slice]:
    """Yield slices of the first axis of x, each of about `size` bytes of x."""
    step = max(1, size * len(x) // max(x.nbytes, 1))
    return (slice(start, start + step) for start in range(0, len(x), step))


def blockwise(f: Callable[..., Arrays], *arrays: Array) -> Arrays:
    """Return f(*arrays) for a pointwise f of arrays of one shape, block by block; a tuple if f returns one."""
    first = arrays[0]
    # Objects are pointers, whose size says nothing of the work; and small arrays should pay for no loop.
    if first.nbytes <= _BLOCK or first.dtype == OBJECT:
        return f(*arrays)
    flat = rowwise(f, *(a.reshape(-1) for a in arrays))
    return one_or_tuple(tuple(part.reshape(first.shape) for part in as_tuple(flat)))


def rowwise(f: Callable[..., Arrays], *arrays: Array) -> Arrays:
    """Return f(*arrays) for an f that acts row by row, block by block; a tuple if f returns one."""
    first = arrays[0]
    if first.nbytes <= _BLOCK or first.dtype == OBJECT:
        return f(*arrays)
    results: tuple[Array, ...] = ()
    for rows in blocks(first):
        parts = as_tuple(f(*(a[rows] for a in arrays)))
        results = results or tuple(np.empty_like(part, shape=(len(first), *part.shape[1:])) for part in parts)
        for result, part in zip(results, parts, strict=True):
            result[rows] = part
    return one_or_tuple(results)


def rows_along(x: Array, axis: int) -> Array:
    """Return x as a matrix (N, n), n the extent of the axis: x itself or a view of it if possible."""
    if x.ndim == 2 and axis in (1, -1):
        return x
    moved = np.moveaxis(x, axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def array_of(rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Return the array of this shape whose `rows_along` the axis are the given rows."""
    if len(shape) == 2 and axis in (1, -1):
        return rows
    axis %= len(shape)
    return np.moveaxis(rows.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis]), -1, axis)
