"""Softplus, a smooth rectifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..precision import narrow, scalar, widen
from ..protocol import Array
from ..validation import require_positive, require_real
from .elementwise import Transcendental, logistic, minus_magnitude


@dataclass(frozen=True)
class Softplus(Transcendental):
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

    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return log(1 + e^{βz})/β, and 1/(1 + e^{−βz})."""
        wide = widen(z)
        beta = scalar(self.beta, wide)
        scaled = beta * wide
        e = np.exp(minus_magnitude(scaled))
        y, slope = np.maximum(wide, 0) + np.log1p(e) / beta, logistic(scaled, e)
        if self.threshold is not None:
            linear = scaled > scalar(self.threshold, scaled)
            y, slope = np.where(linear, wide, y), np.where(linear, np.ones_like(wide), slope)
        return narrow(y, z.dtype), narrow(slope, z.dtype)
