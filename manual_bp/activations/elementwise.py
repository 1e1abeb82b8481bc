"""What every elementwise activation shares: the chain rule through σ, and the laws of a layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..blocks import blockwise
from ..protocol import Array, Cache, Params
from ..validation import OBJECT, require_names, require_ranked, require_rows, require_shape

_NO_NAMES: frozenset[str] = frozenset()


class Elementwise(ABC):
    """y = σ(z) entry by entry; δ before σ is δ after σ times σ'(z). A subclass states σ and σ'."""

    preserves_shape: ClassVar[bool] = True

    @abstractmethod
    def value(self, z: Array) -> Array:
        """Return σ(z), a new array."""

    @abstractmethod
    def derivative(self, z: Array) -> Array:
        """Return σ'(z), a new array."""

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: there is nothing to learn."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return σ(z); z has any rank from 1 up."""
        self._check(params, z)
        return self.value(z), z

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return delta · σ'(z)."""
        require_shape(self, "backward", "delta", delta, cache.shape, cache, "y")
        return delta * self.derivative(cache), {}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return diag σ'(z) for each row of z, shape (N, n, n)."""
        require_rows(self, "jacobian", "z", z)
        require_names(self, "jacobian", "params", params, _NO_NAMES)
        rows, n = z.shape
        result = np.zeros((rows, n, n), z.dtype)
        result[:, range(n), range(n)] = self.derivative(z)
        return result

    def _check(self, params: Params, z: Array) -> None:
        require_ranked(self, "forward", "z", z)
        if params != {}:
            require_names(self, "forward", "params", params, _NO_NAMES)


class Transcendental(Elementwise):
    """An activation whose σ and σ' share an exponential, which costs more than all else.

    Both are found going forward, and the cache is σ'(z), in the memory that z would take. A subclass states the pair.
    """

    @abstractmethod
    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return σ(z) and σ'(z), new arrays."""

    def value(self, z: Array) -> Array:
        """Return σ(z), a new array."""
        return self.with_derivative(z)[0]

    def derivative(self, z: Array) -> Array:
        """Return σ'(z), a new array."""
        return self.with_derivative(z)[1]

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return σ(z); z has any rank from 1 up."""
        self._check(params, z)
        y, slope = blockwise(self.with_derivative, z)
        return y, slope

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return delta · σ'(z)."""
        require_shape(self, "backward", "delta", delta, cache.shape, cache, "y")
        return delta * cache, {}


def minus_magnitude(z: Array) -> Array:
    """Return −|z|, of two equals −z, by a comparison alone, which every number type offers."""
    return np.minimum(-z, z)


def logistic(z: Array, e: Array) -> Array:
    """Return 1/(1 + e^{−z}), given e = e^{−|z|}: 1/(1 + e) where z >= 0 and e/(1 + e) elsewhere."""
    # As e <= 1, the choice is a maximum: np.where would take a branch for each entry, and guess wrong half the time.
    above = np.where(z >= 0, 1, e) if z.dtype == OBJECT else np.maximum(z >= 0, e)
    result: Array = above / (1 + e)
    return result
