"""Softmax along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..precision import narrow, widen
from ..protocol import Array, Cache, Params
from ..rows import array_of, rows_along
from ..validation import require_axis, require_integer, require_names, require_row_axis, require_shape

_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Softmax:
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

    axis: int = -1

    preserves_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integer(self, "", "axis", self.axis)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: there is nothing to learn."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return a, which sums to 1 along the axis."""
        require_axis(self, "forward", "z", z, self.axis)
        require_names(self, "forward", "params", params, _NO_NAMES)
        a = _probabilities(rows_along(z, self.axis))
        y = array_of(narrow(a, z.dtype), z.shape, self.axis)
        return y, (y, a)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return dz_i = a_i(d_i − Σ_j d_j a_j), d = δ − δ_m."""
        y, a = cache
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        wide = widen(rows_along(delta, self.axis))
        d = wide - wide[np.arange(len(a)), a.argmax(axis=1)][:, None]
        dz = narrow(a * (d - (d * a).sum(axis=1, keepdims=True)), y.dtype)
        return array_of(dz, y.shape, self.axis), {}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return (24), a_i(1[i=j] − a_j), shape (N, n, n), of the columns of rows."""
        require_row_axis(self, "jacobian", "z", z, self.axis)
        require_names(self, "jacobian", "params", params, _NO_NAMES)
        a = _probabilities(z)
        result: Array = narrow(a[:, :, None] * (np.eye(a.shape[1], dtype=a.dtype) - a[:, None, :]), z.dtype)
        return result


def _probabilities(z: Array) -> Array:
    wide = widen(z)
    e: Array = np.exp(wide - wide.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    return e
