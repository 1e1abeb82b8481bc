"""The leaky rectified linear unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..precision import scalar, zero
from ..protocol import Array
from ..validation import require_real
from .elementwise import Elementwise


@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    """σ(z) = z where z > 0, slope·z elsewhere; σ'(z) = 1 where z > 0, slope elsewhere, at 0 itself too.

    `kink_convention` maps the place of the kink to the derivative declared there, the slope.

    Shapes: any of rank 1 or more. Dtypes: floating or object, kept; the slope may be a Fraction, for
    exact use.
    Raises: ValueError for rank 0, a delta of another shape or a slope that is not finite, TypeError for a
    dtype that is not floating or a slope that is no number.
    Source: Maas, Hannun & Ng 2013.
    """

    slope: Any = 0.01

    def __post_init__(self) -> None:
        require_real(self, "", "slope", self.slope)

    @property
    def kink_convention(self) -> Mapping[float, float]:
        """The derivative declared at 0."""
        return {0.0: self.slope}

    def value(self, z: Array) -> Array:
        """Return z where z > 0, slope·z elsewhere."""
        y: Array = np.minimum(z, 0)
        y *= scalar(self.slope, z)
        y += np.maximum(0, z)  # of two equal exact numbers the first: at 0 the slope is that of z <= 0
        return y

    def derivative(self, z: Array) -> Array:
        """Return 1 where z > 0, the slope elsewhere."""
        return rectified_slope(z, scalar(self.slope, z))


def rectified_slope(z: Array, slope: Any) -> Array:
    """Return 1 where z > 0, slope elsewhere, without a branch for each entry, as np.where would take."""
    above = (z > zero(z.dtype)).astype(z.dtype)
    result: Array = 1 - above
    result *= slope
    result += above
    return result
