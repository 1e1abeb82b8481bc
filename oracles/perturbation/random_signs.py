"""Perturb arrays by random signs, each dtype by a rounding error of its own size.

Signs are windows into one pool. An array of a coarser precision than the subject's (a reference may cast to bfloat16)
rounds in that precision, whatever the subject computes in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from oracles.constants import COMMON_SIGNS, CONFIDENCE, HALF_CONFIDENCE, SIGN_POOL, SMALL_SIGN_POOL
from oracles.perturbation.fill_values import FillValues
from oracles.perturbation.jaxpr_kernels import integer_bound
from oracles.perturbation.sign_pool import sign_pool, window
from oracles.rule import Array, Perturbation, RoundingErrors


class Perturb(Protocol):
    """``perturb(x, shape, terms)``: x, broadcast to ``shape``, with every entry moved by its own signs.

    ``terms`` is the length of the reduction that x is an operand of, a matrix ``product`` or another one. With
    ``unless_exact``, integers stay as they are: those that every number of the subject's precision represents.
    """

    def __call__(
        self,
        x: Array,
        shape: Sequence[int] | None = None,
        terms: int = 1,
        unless_exact: bool = False,
        product: bool = False,
    ) -> Array:
        """Return the perturbed array."""


@lru_cache(maxsize=16)
def _signs_of(dtype: np.dtype[Any]) -> Array:
    signs = sign_pool()
    # The signs of imaginary parts are other ones than those of real parts.
    return np.asarray(signs + 1j * signs[::-1] if dtype.kind == "c" else signs, dtype)


@lru_cache(maxsize=16)
def _pools(dtype: np.dtype[Any], relative: float, absolute: float) -> tuple[Array, Array | None]:
    """Return the factors 1 ± relative, and ± absolute."""
    signs = _signs_of(dtype)
    return 1 + signs * dtype.type(relative), signs * dtype.type(absolute) if absolute else None


@lru_cache(maxsize=128)
def _small_pool(dtype: np.dtype[Any], size: float, common: float) -> Array:
    """Return the factors (1 ± size)(1 + common) of the operands of one kind of reduction.

    The second one is common to all terms: the partial sums of equal terms are all rounded the same way.
    """
    return np.asarray((1 + _signs_of(dtype)[:SMALL_SIGN_POOL] * dtype.type(size)) * dtype.type(1 + common))


@lru_cache(maxsize=16)
def unit_of(dtype: np.dtype[Any]) -> float:
    """Return the unit roundoff of a floating or complex dtype."""
    return float(ml_dtypes.finfo(dtype).eps) / 2


@lru_cache(maxsize=16)
def _least(dtype: np.dtype[Any]) -> float:
    """Return what a rounding in a dtype moves at least; nothing for the precision in which references are evaluated."""
    unit = unit_of(dtype)
    factor = HALF_CONFIDENCE if dtype.itemsize == 2 else CONFIDENCE
    return factor * unit if unit > unit_of(np.dtype(np.float64)) else 0.0


def _for_dtype(perturbation: Perturbation, dtype: np.dtype[Any]) -> Perturbation:
    """Return the perturbation of arrays of a dtype."""
    if not 0 < perturbation.relative < _least(dtype):
        return perturbation
    # Half precision sums in float32.
    accumulated = _least(np.dtype(np.float32)) if dtype.itemsize == 2 else None
    return perturbation._replace(relative=_least(dtype), accumulated=accumulated)


def perturber(perturbation: Perturbation) -> Perturb:
    """Return the function that perturbs arrays: x becomes x (1 ± h√terms) ± floor, with fresh signs.

    Real and imaginary part of a complex z have signs of their own, and move by h |z|. The signs are windows into one
    pool of 2^16, at offsets that ``perturbation.rng`` seeds: a use costs 1.5 µs.
    """
    state = int(perturbation.rng.integers(1, 2**31 - 1))
    dtype, own = np.dtype(np.float64), perturbation
    scales, floors = _pools(dtype, own.relative, own.absolute)
    sizes: dict[tuple[int, bool], RoundingErrors] = {}  # of the errors, by terms

    def perturb(
        x: Array,
        shape: Sequence[int] | None = None,
        terms: int = 1,
        unless_exact: bool = False,
        product: bool = False,
    ) -> Array:
        nonlocal state, dtype, own, scales, floors
        if x.dtype is not dtype:
            dtype, own = x.dtype, _for_dtype(perturbation, x.dtype)
            scales, floors = _pools(dtype, own.relative, own.absolute)
            sizes.clear()
        if shape is None:
            shape, size = x.shape, x.size
        else:
            size = math.prod(shape)
        product = product and own.multiplied > 0
        if unless_exact and _are_exact(x, own.relative + own.multiplied * product):
            return x if x.shape == shape else np.broadcast_to(x, shape)
        state = state * 48271 % 2147483647  # Lehmer's generator
        if dtype.kind == "c" or size > (SIGN_POOL if terms == 1 and not product else SMALL_SIGN_POOL // 2):
            return perturb_otherwise(x, shape, size, own.of_length(terms, product))
        # Windows may overlap: what matters is that no operand meets the same signs in the next sample.
        if terms == 1 and not product:
            start = state % SIGN_POOL
            x = x * scales[start : start + size].reshape(shape)
        else:
            key = terms, product
            error = sizes.get(key) or sizes.setdefault(key, own.of_length(terms, product))
            start = state % (SMALL_SIGN_POOL - size + 1)
            common = error.common * COMMON_SIGNS[state & 3]
            x = x * _small_pool(dtype, error.own, common)[start : start + size].reshape(shape)
        if floors is None:
            return x
        state = state * 48271 % 2147483647
        start = state % SIGN_POOL
        return np.asarray(x + floors[start : start + size].reshape(shape))

    def perturb_otherwise(x: Array, shape: Sequence[int], size: int, error: RoundingErrors) -> Array:
        """Perturb complex numbers, or an array that is large for its pool."""
        moves = window(_signs_of(dtype), state, size).reshape(shape) * dtype.type(error.own)
        # A real number by one product, since ∞ ± ∞ h would be NaN.
        x = x + np.abs(x) * moves if dtype.kind == "c" else x * (1 + moves)
        if error.common:
            x = x * dtype.type(1 + error.common * COMMON_SIGNS[state & 3])
        return x if floors is None else np.asarray(x + window(floors, state // 2, size).reshape(shape))

    return perturb


def keeping(perturb: Perturb, fills: FillValues) -> Perturb:
    """Return a function that perturbs as another one does, and leaves the large constants of a code as they are."""

    def keep(x: Array, *how: Any, **named: Any) -> Array:
        return fills.restored(x, perturb(x, *how, **named))

    return keep


def _are_exact(x: Array, relative: float) -> bool:
    """Return whether these are integers so small that a precision of this rounding error has all of them."""
    if x.size and not float(np.real(x.item(0))).is_integer():
        return False
    bound = integer_bound(x)
    return bound is not None and bound * relative < 1
