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


def _is_one_block(x: Array) -> bool:
    # Objects are pointers, whose size says nothing of the work; and small arrays should pay for no loop.
    return x.nbytes <= _BLOCK or x.dtype == OBJECT


def in_blocks(f: Callable[..., None], *arrays: Array) -> None:
    """Call f(*arrays), which acts row by row and writes into some of the arrays, block by block."""
    if _is_one_block(arrays[0]):
        f(*arrays)
        return
    with _short_buffers():
        for rows in blocks(arrays[0]):
            f(*(a[rows] for a in arrays))


def pointwise(f: Callable[..., None], z: Array, results: int) -> tuple[Array, ...]:
    """Return as many new arrays like z, into which f(z, *arrays) writes entry by entry, block by block."""
    is_one = _is_one_block(z) and z.ndim > 0  # operations on arrays without axes return numbers
    flat = z if is_one else z.reshape(-1)
    written = tuple(np.empty_like(flat) for _ in range(results))
    in_blocks(f, flat, *written)
    return written if is_one else tuple(each.reshape(z.shape) for each in written)


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
