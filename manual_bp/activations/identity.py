"""The identity, the activation of a linear output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..protocol import Array
from .elementwise import Elementwise


@dataclass(frozen=True)
class Identity(Elementwise):
    """σ(z) = z, σ'(z) = 1; the output is a copy, never z itself.

    Shapes: any of rank 1 or more. Dtypes: floating or object, kept.
    Raises: ValueError for rank 0 or a delta of another shape, TypeError for a dtype that is not floating.
    """

    def value(self, z: Array) -> Array:
        """Return a copy of z."""
        return z.copy()

    def derivative(self, z: Array) -> Array:
        """Return ones."""
        return np.ones_like(z)
