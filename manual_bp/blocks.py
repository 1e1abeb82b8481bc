"""Large arrays taken a block at a time, so that what is computed on the way stays near at hand.

An elementwise formula of ten operations makes ten arrays. Of a block they fit in a core's cache, of a large array each
would be written to memory and read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .protocol import Array, as_tuple, untupled
from .validation import OBJECT

_BLOCK = 1 << 18  # bytes of an input


def blocks(x: Array, size: int = _BLOCK) -> Iterator[slice]:
    """Yield slices of the first axis of x that hold about so many bytes of it."""
    step = max(1, size * len(x) // max(x.nbytes, 1))
    return (slice(start, start + step) for start in range(0, len(x), step))


def blockwise(f: Callable[..., Any], *arrays: Array) -> Any:
    """Return f of arrays of one shape, any rank, and f elementwise; of several outputs a tuple."""
    first = arrays[0]
    if first.nbytes <= _BLOCK or first.dtype == OBJECT:
        return f(*arrays)
    found = rowwise(f, *(a.reshape(-1) for a in arrays))
    return untupled(tuple(part.reshape(first.shape) for part in as_tuple(found)))


def rowwise(f: Callable[..., Any], *arrays: Array) -> Any:
    """Return f of arrays with as many rows each, and f row by row; of several outputs a tuple."""
    first = arrays[0]
    if first.nbytes <= _BLOCK or first.dtype == OBJECT:
        return f(*arrays)
    results: tuple[Array, ...] = ()
    for rows in blocks(first):
        parts = as_tuple(f(*(a[rows] for a in arrays)))
        results = results or tuple(np.empty_like(part, shape=(len(first), *part.shape[1:])) for part in parts)
        for result, part in zip(results, parts, strict=True):
            result[rows] = part
    return untupled(results)
