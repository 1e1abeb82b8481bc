"""Softplus, a smooth rectifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..precision import scalar, widen
from ..protocol import Array
from ..validation import require_positive, require_real
from .elementwise import Elementwise, minus_magnitude
from .sigmoid import Sigmoid


@dataclass(frozen=True)
class Softplus(Elementwise):
    """σ(z) = log(1 + e^{βz})/β (82), σ'(z) = 1/(1 + e^{−βz}) (83).

    Computed as max(z, 0) + log1p(e^{−β|z|})/β, a sum of two numbers that are not negative: nothing
    overflows, and the left tail is e^{βz}/β down to the smallest positive number.

    With a `threshold`, σ(z) = z and σ'(z) = 1 where βz > threshold.

    Shapes: any of rank 1 or more. Dtypes: floating or object, kept; float16 is carried in float32.
    Raises: ValueError for rank 0, a delta of another shape, β <= 0 or a number that is not finite,
    TypeError for a dtype that is not floating.
    Differs from torch's Softplus: no threshold unless one is asked for, because torch's 20 is a jump of
    2e-9 that saves no overflow here.
    Source: Dugas et al. 2001, "Incorporating second-order functional knowledge", eq. 3.
    """

    beta: Any = 1.0
    threshold: Any = None

    def __post_init__(self) -> None:
        require_positive(self, "", "beta", self.beta)
        if self.threshold is not None:
            require_real(self, "", "threshold", self.threshold)

    def value(self, z: Array) -> Array:
        """Return log(1 + e^{βz})/β."""
        wide = widen(z)
        scaled = scalar(self.beta, wide) * wide
        smooth = np.log1p(np.exp(minus_magnitude(scaled))) / scalar(self.beta, wide)
        y = np.where(wide >= 0, wide, 0) + smooth
        return self._linear_beyond(scaled, wide, y).astype(z.dtype, copy=False)

    def derivative(self, z: Array) -> Array:
        """Return 1/(1 + e^{−βz})."""
        wide = widen(z)
        scaled = scalar(self.beta, wide) * wide
        slope = Sigmoid().value(scaled)
        return self._linear_beyond(scaled, np.ones_like(wide), slope).astype(z.dtype, copy=False)

    def _linear_beyond(self, scaled: Array, linear: Array, smooth: Array) -> Array:
        if self.threshold is None:
            return smooth
        return np.where(scaled > scalar(self.threshold, scaled), linear, smooth)
