"""Perturb NumPy arrays by random signs, cheaply: windows into one pool of signs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from oracles.rule import Array, Perturbation

# perturb(x, shape=None): x, broadcast to shape, with every entry moved by its own signs.
Perturb: TypeAlias = Callable[..., Array]

_POOL = 1 << 16
_SIGNS = np.random.default_rng(0).choice((-1.0, 1.0), size=_POOL)


@lru_cache(maxsize=16)
def _pools(dtype: np.dtype[Any], h: float, floor: float) -> tuple[Array, Array | None]:
    return (1 + _SIGNS * h).astype(dtype), (_SIGNS * floor).astype(dtype) if floor else None


def perturber(perturbation: Perturbation) -> Perturb:
    """Return ``perturb(x, shape=None)``: x, broadcast to ``shape``, times 1 ± h, plus ± floor, with fresh signs.

    The signs are windows into one pool of 2^16, at offsets that ``perturbation.rng`` seeds: a use costs 1.5 µs.
    """
    state = int(perturbation.rng.integers(1, 2**31 - 1))
    dtype, (scales, floors) = None, _pools(np.dtype(np.float64), perturbation.relative, perturbation.absolute)

    def perturb(x: Array, shape: Sequence[int] | None = None) -> Array:
        nonlocal state, dtype, scales, floors
        if x.dtype is not dtype:
            dtype = x.dtype
            scales, floors = _pools(dtype, perturbation.relative, perturbation.absolute)
        if shape is None:
            shape, size = x.shape, x.size
        else:
            size = math.prod(shape)
        if size > _POOL:
            return perturb_large(x, shape)
        state = state * 48271 % 2147483647  # Lehmer's generator
        start = state % (_POOL - size + 1)
        x = x * scales[start : start + size].reshape(shape)
        if floors is None:
            return x
        state = state * 48271 % 2147483647
        start = state % (_POOL - size + 1)
        return np.asarray(x + floors[start : start + size].reshape(shape))

    def perturb_large(x: Array, shape: Sequence[int]) -> Array:
        """Perturb an array larger than the pool, with the pool repeated."""
        nonlocal state
        state = state * 48271 % 2147483647
        x = x * np.resize(np.roll(scales, state % _POOL), shape)
        return x if floors is None else x + np.resize(np.roll(floors, state // _POOL % _POOL), shape)

    return perturb
