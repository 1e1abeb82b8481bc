"""The rectified linear unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from ..precision import zero
from ..protocol import Array
from .elementwise import Elementwise


@dataclass(frozen=True)
class ReLU(Elementwise):
    """σ(z) = max(z, 0), σ'(z) = 1 where z > 0 and 0 elsewhere, at 0 itself too.

    `kink_convention` maps the place of the kink to the derivative declared there: any number in [0, 1]
    would be a subgradient at 0; this one is 0, as in the literature and in torch.

    Shapes: any of rank 1 or more. Dtypes: floating or object, kept.
    Raises: ValueError for rank 0 or a delta of another shape, TypeError for a dtype that is not floating.
    Source: Nair & Hinton 2010.
    """

    kink_convention: ClassVar[Mapping[float, float]] = MappingProxyType({0.0: 0.0})

    def value(self, z: Array) -> Array:
        """Return max(0, z): of two equals, exact numbers keep the first, which has derivative 0."""
        return np.maximum(zero(z.dtype), z)

    def derivative(self, z: Array) -> Array:
        """Return 1 where z > 0, 0 elsewhere, as numbers: a product with a mask converts it more slowly."""
        return (z > zero(z.dtype)).astype(z.dtype)
