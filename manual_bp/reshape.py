"""Flatten: images, or samples of any shape, as the rows of the derivation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from ._validation import NO_NAMES, require_names, require_ranked, require_shape
from .protocol import Array, Cache, Params


@dataclass(frozen=True)
class Flatten:
    """Flatten: each sample becomes a row, its last axis running fastest, as `Linear` expects it.

    The entries of z are those of y, and the entries of δ those of ∂L/∂z.

    Shapes: z (N, …), y (N, product of the other axes); N may be 0. Dtypes: floating or object, kept; y is a copy.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.
    """

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: the layer has no parameters."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return a copy of z, shape (N, n)."""
        require_ranked(self, "forward", "z", z)
        require_names(self, "forward", "params", params, NO_NAMES)
        return z.copy(order="C").reshape(len(z), prod(z.shape[1:])), z

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return a copy of delta in the shape of z."""
        z = cache
        require_shape(self, "backward", "delta", delta, (len(z), prod(z.shape[1:])), z, "y")
        return delta.copy(order="C").reshape(z.shape), {}
