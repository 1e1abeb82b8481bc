"""What every elementwise activation shares: the chain rule through σ, and the laws of a layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..protocol import Array, Cache, Params
from ..validation import require_names, require_ranked, require_rows, require_shape

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
        require_ranked(self, "forward", "z", z)
        if params != {}:
            require_names(self, "forward", "params", params, _NO_NAMES)
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


def minus_magnitude(z: Array) -> Array:
    """Return −|z| by a comparison alone, which every number type offers."""
    return np.where(z >= 0, -z, z)
