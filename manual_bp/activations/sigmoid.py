"""The logistic sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..protocol import Array
from .elementwise import Transcendental, logistic, minus_magnitude


@dataclass(frozen=True)
class Sigmoid(Transcendental):
    """σ(z) = 1/(1 + e^{−z}), computed without overflow and accurate in both tails.

    With e = e^{−|z|}, which lies in (0, 1]: σ(z) is 1/(1 + e) for z >= 0 and e/(1 + e) below, and σ'(z) is
    e/(1 + e)². The textbook's y(1 − y) is 0 from z = 17 on in float32, where σ' is still 4e-8.

    Shapes: any of rank 1 or more. Dtypes: floating or object, kept.
    Raises: ValueError for rank 0 or a delta of another shape, TypeError for a dtype that is not floating.
    """

    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return σ(z), and σ'(z), even in z."""
        e = np.exp(minus_magnitude(z))
        slope: Array = e / ((1 + e) * (1 + e))
        return logistic(z, e), slope
