"""The logarithm of softmax along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..exponentials import against_weights, exponentials
from ..precision import narrow, widen
from ..protocol import Array, Cache, Params
from ..rows import array_of, rows_along
from ..validation import require_axis, require_integer, require_names, require_row_axis, require_shape

_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LogSoftmax:
    """y_i = z_i − log Σ_k e^{z_k} along an axis (84); dz = δ − a Σ_k δ_k, a = e^y (85).

    Computed as (z_i − z_m) − log1p(Σ_{k≠m} e^{z_k − z_m}), a sum of two numbers of one sign: log a_m keeps
    its digits when a_m → 1. So does dz_m = δ_m(1 − a_m) − a_m Σ_{k≠m} δ_k, with 1 − a_m from what is left
    beside a_m.

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
        """Return log a."""
        require_axis(self, "forward", "z", z, self.axis)
        require_names(self, "forward", "params", params, _NO_NAMES)
        found = exponentials(widen(rows_along(z, self.axis)))
        log_a = found.shifted - np.log1p(found.rest)[:, None]
        y = array_of(narrow(log_a, z.dtype), z.shape, self.axis)
        return y, (y, found)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return δ − a Σ δ."""
        y, found = cache
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        dz = narrow(-against_weights(found, widen(rows_along(delta, self.axis))), y.dtype)
        return array_of(dz, y.shape, self.axis), {}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return ∂y_i/∂z_j = 1[i=j] − a_j, shape (N, n, n), of the columns of rows."""
        require_row_axis(self, "jacobian", "z", z, self.axis)
        require_names(self, "jacobian", "params", params, _NO_NAMES)
        a = np.exp(self.forward(params, z)[0])
        result: Array = np.eye(a.shape[1], dtype=a.dtype) - a[:, None, :]
        return result
