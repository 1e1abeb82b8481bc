"""The logarithm of softmax along an axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..exponentials import Exponentials, against_weights, exponentials
from ..protocol import Array
from .along_axis import AlongAxis


@dataclass(frozen=True)
class LogSoftmax(AlongAxis):
    """y_i = z_i − log Σ_k e^{z_k} along an axis (84); dz = δ − a Σ_k δ_k, a = e^y (85).

    Computed as (z_i − z_m) − log1p(Σ_{k≠m} e^{z_k − z_m}), a sum of two numbers of one sign: log a_m keeps
    its digits when a_m → 1. So does dz_m = δ_m(1 − a_m) − a_m Σ_{k≠m} δ_k, with 1 − a_m from what is left
    beside a_m.

    Shapes: z, y, delta of one shape, with 1 or more entries along the axis, and any number elsewhere.
    Dtypes: floating or object, kept; float16 is computed in float32.
    Raises: ValueError for a shape without such an axis or a delta of another shape, TypeError for a dtype
    that is not floating or an axis that is no integer.
    """

    def of_rows(self, z: Array) -> tuple[Array, Exponentials]:
        """Return log a."""
        found = exponentials(z)
        return found.shifted - np.log1p(found.rest)[:, None], found

    def back_to_rows(self, kept: Exponentials, delta: Array) -> Array:
        """Return δ − a Σ δ."""
        return -against_weights(kept, delta)

    def jacobian_of_rows(self, y: Array, kept: Exponentials) -> Array:
        """Return ∂y_i/∂z_j = 1[i=j] − a_j."""
        a = np.exp(y)
        result: Array = np.eye(a.shape[1], dtype=a.dtype) - a[:, None, :]
        return result
