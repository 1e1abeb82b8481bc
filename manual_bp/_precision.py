"""The precision that an operation computes in, and sums and constants in that precision.

Every operation computes in the precision of its input, except that float16 and bfloat16 are computed in float32.
bfloat16 is the dtype of the package ml_dtypes, which is not imported here. A product with `ones` sums, and a comparison
with `zero` compares, in half the time that `sum` and the number 0 take on small arrays.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

from ._validation import OBJECT
from .protocol import Array, Arrays, DType, Number

# The bytes of float16 and bfloat16, and of no other floating dtype; and of float32.
_HALF = 2
_SINGLE = 4
# Entries of which one slow operation is faster than several fast ones.
_FEW = 256


def widen(x: Array) -> Array:
    """Return float16 and bfloat16 as float32, anything else as it is: sums in them overflow and round early."""
    return x.astype(np.float32) if x.dtype.itemsize == _HALF else x


def at_least_float64(x: Array) -> Array:
    """Return half precision and float32 as float64: in a long formula they would lose their last digits."""
    return x.astype(np.float64) if x.dtype.itemsize <= _SINGLE else x


def narrow(x: Arrays, dtype: DType) -> Arrays:
    """Return the array or scalar x, computed from `widen`, in the dtype of the caller's arrays."""
    return x.astype(dtype) if dtype.itemsize == _HALF else x


def scalar(value: Number, x: Array) -> Number:
    """Return a configured number for arithmetic with x: a float, or as it is if x holds objects."""
    return value if x.dtype == object else float(value)


@lru_cache(maxsize=32)  # few, since an entry may be as long as a batch
def ones(shape: int | tuple[int, ...], dtype: DType) -> Array:
    """Return ones, read-only."""
    result = np.ones(shape, dtype)
    result.flags.writeable = False
    return result


@lru_cache(maxsize=32)
def row_starts(rows: int, n: int) -> Array:
    """Return the flat indices at which the rows of a matrix (rows, n) start, read-only."""
    result = np.arange(0, rows * n, n)
    result.flags.writeable = False
    return result


@lru_cache
def zero(dtype: DType) -> Array:
    """Return 0 as an array without axes, read-only."""
    result = np.zeros((), dtype)
    result.flags.writeable = False
    return result


@lru_cache
def largest_exponent(dtype: DType) -> float:
    """Return the largest integer whose exponential is finite."""
    return float(np.floor(np.log(np.finfo(dtype).max)))


def log1p(e: Array, above: Array) -> Array:
    """Return log(1 + e) for e in [0, 1], given 1 + e as it was rounded."""
    if e.dtype == OBJECT or e.size < _FEW:
        return np.asanyarray(np.log1p(e))
    # NumPy's log1p takes up to five times as long as its log. What 1 + e lost, e − (above − 1), is exact; to first
    # order log(above + lost) is log(above) + lost/above, and the second is below a rounding.
    lost: Array = e - (above - 1)
    lost /= above
    lost += np.log(above)
    return lost


def channel_sums(x: Array) -> Array:
    """Return the sums of x (N, C, …) over all axes except the channels: shape (C,)."""
    n, channels, positions = x.shape[0], x.shape[1], prod(x.shape[2:])
    # Two products with ones, over the positions and then over the samples: BLAS adds faster than `sum` does.
    each = x.reshape(n * channels, positions).dot(ones(positions, x.dtype)) if positions != 1 else x
    total: Array = ones(n, x.dtype).dot(each.reshape(n, channels))
    return total


def channel_products(x: Array, y: Array) -> Array:
    """Return the sums of the products x y, both (N, C, P), over all axes except the channels: shape (C,)."""
    if x.shape[2] == 1:
        return channel_sums(x * y)
    total: Array = ones(len(x), x.dtype).dot(np.vecdot(x, y))
    return total
