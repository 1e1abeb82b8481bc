"""Which precision an operation computes in: its own, except that float16 is carried in float32.

And constants in that precision: a product with `ones` sums, and a comparison with `zero` compares, in
half the time that `sum` and the number 0 take on small arrays.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .protocol import Array

_HALF = np.dtype(np.float16)
_SHORT = (_HALF, np.dtype(np.float32))


def widen(x: Array) -> Array:
    """Return float16 as float32, anything else as it is: sums of halves overflow and round early."""
    return x.astype(np.float32) if x.dtype == _HALF else x


def carried(x: Array) -> Array:
    """Return halves and singles as doubles, where a long formula would cost them their last digits."""
    return x.astype(np.float64) if x.dtype in _SHORT else x


def narrow(x: Any, dtype: np.dtype[Any]) -> Any:
    """Return the array or scalar x in the dtype that the caller passed in."""
    return x.astype(dtype) if dtype == _HALF else x


def scalar(value: Any, x: Array) -> Any:
    """Return a configured number for arithmetic with x: a float, or as given where x holds objects."""
    return value if x.dtype == object else float(value)


@lru_cache(maxsize=32)
def ones(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return ones, read-only."""
    result = np.ones(shape, dtype)
    result.flags.writeable = False
    return result


@lru_cache
def zero(dtype: np.dtype[Any]) -> Array:
    """Return 0 as an array without axes, read-only."""
    result = np.zeros((), dtype)
    result.flags.writeable = False
    return result
