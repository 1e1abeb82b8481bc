"""Images, or samples of any shape, as the rows of the derivation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from ..protocol import Array, Cache, Params
from ..validation import require_names, require_ranked, require_shape

_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Flatten:
    """Each sample becomes a row, its last axis running fastest: what leads from images to a `Linear`.

    The entries stay what they are, and so do those of δ on their way back.

    Shapes: z (N, …), y (N, product of the other axes); N may be 0.
    Dtypes: floating or object, kept; y is a copy.
    Raises: ValueError for rank 0 or a delta of another shape, TypeError for a dtype that is not floating.
    """

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: there is nothing to learn."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return a copy of z, shape (N, n)."""
        require_ranked(self, "forward", "z", z)
        require_names(self, "forward", "params", params, _NO_NAMES)
        return z.copy(order="C").reshape(len(z), prod(z.shape[1:])), z

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return a copy of delta in the shape of z."""
        z = cache
        require_shape(self, "backward", "delta", delta, (len(z), prod(z.shape[1:])), z, "y")
        return delta.copy(order="C").reshape(z.shape), {}
