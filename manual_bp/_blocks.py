"""Large arrays, computed block by block or row by row.

A pointwise formula of ten operations makes ten arrays. Of a block they fit in a core's cache; of a large array each
would be written to memory and read back. A function that is evaluated so writes its results into arrays that it is
given: returned, each block's would have to be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ._validation import OBJECT
from .protocol import Array

# Bytes of an input: its block and a few arrays like it fit in the second-level cache of a core. Below half of it, what
# Python takes for each operation shows.
_BLOCK = 1 << 18


def blocks(x: Array, size: int = _BLOCK) -> Iterator[slice]:
    """Yield slices of the first axis of x, each of about `size` bytes of x."""
    step = max(1, size * len(x) // max(x.nbytes, 1))
    return (slice(start, start + step) for start in range(0, len(x), step))


def in_blocks(f: Callable[..., None], *arrays: Array) -> None:
    """Call f(*arrays), which acts row by row and writes into some of the arrays; block by block if they are large."""
    first = arrays[0]
    # Objects are pointers, whose size says nothing of the work; and small arrays should pay for no loop.
    if first.nbytes <= _BLOCK or first.dtype == OBJECT:
        f(*arrays)
        return
    for rows in blocks(first):
        f(*(a[rows] for a in arrays))


def pointwise(f: Callable[..., None], z: Array, results: int) -> tuple[Array, ...]:
    """Return as many new arrays like z, which f(z, *arrays) writes entry by entry; block by block if z is large."""
    if z.nbytes <= _BLOCK or z.dtype == OBJECT:
        written = tuple(np.empty_like(z) for _ in range(results))
        f(z, *written)
        return written
    flat = z.reshape(-1)
    written = tuple(np.empty_like(flat) for _ in range(results))
    in_blocks(f, flat, *written)
    return tuple(each.reshape(z.shape) for each in written)


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
