"""Large arrays, computed block by block.

A formula of ten operations makes ten arrays. Of a block they fit in a core's cache; of a large array each would be
written to memory and read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ._validation import OBJECT
from .protocol import Array

# Bytes of an input: its block and a few arrays like it stay in a core's cache. Below half of it, the time that Python
# takes for each operation shows.
_BLOCK = 1 << 18
# Entries. NumPy copies a broadcast operand into a buffer of 8192 entries if a row is shorter, in twice the time that
# the operation takes; it does not if the row is longer than the buffer.
_BUFFER = 1024


def blocks(x: Array, size: int = _BLOCK) -> Iterator[slice]:
    """Yield slices of the first axis of x, each of about `size` bytes of x."""
    step = max(1, size * len(x) // max(x.nbytes, 1))
    return (slice(start, start + step) for start in range(0, len(x), step))


@contextmanager
def _short_buffers() -> Iterator[None]:
    with np.errstate():  # leaving it restores the size
        np.setbufsize(_BUFFER)
        yield


def in_blocks(f: Callable[..., None], *arrays: Array) -> None:
    """Call f(*arrays), which acts row by row and writes into some of the arrays, block by block."""
    first = arrays[0]
    # Objects are pointers, whose size says nothing of the work; and small arrays should pay for no loop.
    if first.nbytes <= _BLOCK or first.dtype == OBJECT:
        f(*arrays)
        return
    with _short_buffers():
        for rows in blocks(first):
            f(*(a[rows] for a in arrays))


def pointwise(f: Callable[[Array, Array, Array], None], z: Array) -> tuple[Array, Array]:
    """Return two new arrays like z, into which f(z, one, other) writes entry by entry, block by block."""
    if z.nbytes <= _BLOCK and z.ndim:  # operations on arrays without axes return numbers
        one, other = np.empty_like(z), np.empty_like(z)
        f(z, one, other)
        return one, other
    flat = z.reshape(-1)
    one, other = np.empty_like(flat), np.empty_like(flat)
    in_blocks(f, flat, one, other)
    return one.reshape(z.shape), other.reshape(z.shape)


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
