"""The pool of random signs that all backends take the directions of simulated rounding errors from.

Signs are of unequal sizes. With ±1, the errors of two operands of equal size cancel exactly in a difference, in half of
the samples: of 2^16 entries, one would keep the tolerance 0 in each of 16 samples, and its right gradient be refused.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

from oracles.constants import SIGN_POOL, SIGN_SIZES
from oracles.rule import Array


@lru_cache(maxsize=1)
def sign_pool() -> Array:
    """Return `SIGN_POOL` random signs, each times a random size in `SIGN_SIZES`, twice in a row.

    So an array of up to `SIGN_POOL` entries has as many windows as a small one. With few windows, the operands of an
    operation would often meet the same one.
    """
    rng = np.random.default_rng(0)
    return np.tile(rng.choice((-1.0, 1.0), size=SIGN_POOL) * rng.uniform(*SIGN_SIZES, size=SIGN_POOL), 2)


def window(pool: Array, state: int, size: int) -> Array:
    """Return so many entries of a pool from a place that ``state`` gives; it is repeated for a larger array."""
    start = state % SIGN_POOL
    return np.resize(pool[start : start + SIGN_POOL], size) if size > SIGN_POOL else pool[start : start + size]


def drawn_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return a window into the pool at a random place: this is cheaper than to draw."""
    return window(sign_pool(), int(rng.integers(2**31)), prod(shape)).reshape(shape)
