"""Softmax along an axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..protocol import Array
from .along_axis import AlongAxis


@dataclass(frozen=True)
class Softmax(AlongAxis):
    """a_i = e^{z_i} / Σ_k e^{z_k} along an axis (22), with the Jacobian a_i(1[i=j] − a_j) (24).

    That Jacobian annihilates constants, so any number may be subtracted from a row of delta. Subtracting
    δ_m, the entry at the row's largest a_m, makes every remaining term small where the answer is: with d
    = δ − δ_m, dz = a(d − Σ d a) has no term with a_m in its sum. The textbook's δ_m − Σ δ a is a
    difference of two numbers near δ_m once a_m → 1, and loses everything.

    Shapes: z, y, delta of one shape, with 1 or more entries along the axis, and any number elsewhere.
    Dtypes: floating or object, kept; float16 is computed in float32.
    Raises: ValueError for a shape without such an axis or a delta of another shape, TypeError for a dtype
    that is not floating or an axis that is no integer.
    """

    def of_rows(self, z: Array) -> tuple[Array, Array]:
        """Return a, which sums to 1 along each row."""
        a: Array = np.exp(z - z.max(axis=1, keepdims=True))
        a /= a.sum(axis=1, keepdims=True)
        return a, a

    def back_to_rows(self, kept: Array, delta: Array) -> Array:
        """Return dz_i = a_i(d_i − Σ_j d_j a_j), d = δ − δ_m."""
        a = kept
        d = delta - delta[np.arange(len(a)), a.argmax(axis=1)][:, None]
        dz: Array = a * (d - (d * a).sum(axis=1, keepdims=True))
        return dz

    def jacobian_of_rows(self, y: Array, kept: Array) -> Array:
        """Return (24), a_i(1[i=j] − a_j)."""
        result: Array = y[:, :, None] * (np.eye(y.shape[1], dtype=y.dtype) - y[:, None, :])
        return result
