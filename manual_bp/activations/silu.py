"""The sigmoid linear unit, or swish."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..precision import narrow, widen
from ..protocol import Array
from .elementwise import Transcendental, logistic, minus_magnitude


@dataclass(frozen=True)
class SiLU(Transcendental):
    """σ(z) = z s(z) with the logistic s (86); σ'(z) = s(z) + z s'(z), s' = s(1 − s) (87).

    With e = e^{−|z|}: s is 1/(1 + e) for z >= 0 and e/(1 + e) below, s' is e/(1 + e)²: both tails keep
    their digits, where z s(1 − s) is 0 once s rounds to 1.

    Shapes: any of rank 1 or more. Dtypes: floating or object, kept; float16 is carried in float32.
    Raises: ValueError for rank 0 or a delta of another shape, TypeError for a dtype that is not floating.
    Source: Elfwing, Uchibe & Doya 2018, "Sigmoid-weighted linear units", eq. 5.
    """

    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return z s(z), and s(z) + z s'(z)."""
        wide = widen(z)
        e = np.exp(minus_magnitude(wide))
        s = logistic(wide, e)
        slope: Array = s + wide * (e / ((1 + e) * (1 + e)))
        return narrow(wide * s, z.dtype), narrow(slope, z.dtype)
