"""A linear unit gated by a swish."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from ..blocks import rowwise
from ..precision import narrow, widen
from ..protocol import Array, Cache, Params
from ..validation import require_halves, require_names, require_rows, require_shape
from .silu import SiLU

_NO_NAMES: frozenset[str] = frozenset()
_SILU = SiLU()


@dataclass(frozen=True)
class SwiGLU:
    """y = SiLU(g) u, where the last axis of z holds the gates g and then the units u (88).

    du = δ SiLU(g), dg = δ u SiLU'(g) (89). It has no weights of its own: `Sequential(Linear(n, 2m), SwiGLU(),
    Linear(m, n))` is the transformers' feed-forward block, its first W the two matrices W and V side by
    side.

    Shapes: z (…, 2m), y (…, m), of rank 1 or more, m >= 1.
    Dtypes: floating or object, kept; float16 is carried in float32.
    Raises: ValueError for rank 0, for a last axis of odd length or none, or for a delta of another shape,
    TypeError for a dtype that is not floating.
    Differs from torch's GLU, beside the swish in place of the logistic: there the gates are the second
    half; here they are the first, as in the source, SiLU(xW) ⊗ xV.
    Source: Shazeer 2020, "GLU variants improve transformer", eq. 6.
    """

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: there is nothing to learn."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return SiLU(g) u."""
        require_halves(self, "forward", "z", z)
        require_names(self, "forward", "params", params, _NO_NAMES)
        found = rowwise(_gated, z.reshape(-1, z.shape[-1]))
        y, gate, slope = (part.reshape(*z.shape[:-1], z.shape[-1] // 2) for part in found)
        return y, (y, gate, slope)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return dg and du, side by side."""
        y, gate, slope = cache
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        wide = widen(delta)
        return narrow(np.concatenate((wide * slope, wide * gate), axis=-1), y.dtype), {}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return ∂y/∂z for each row of z, shape (N, m, 2m): two diagonals side by side."""
        require_rows(self, "jacobian", "z", z)
        require_halves(self, "jacobian", "z", z)
        require_names(self, "jacobian", "params", params, _NO_NAMES)
        g, u = _halves(z)
        rows, m = g.shape
        result = np.zeros((rows, m, 2 * m), z.dtype)
        gate, slope = _SILU.with_derivative(g)
        result[:, range(m), range(m)] = u * slope
        result[:, range(m), range(m, 2 * m)] = gate
        return result


def _gated(z: Array) -> tuple[Array, Array, Array]:
    """Return SiLU(g) u, SiLU(g) and u SiLU'(g): y, ∂y/∂u and ∂y/∂g."""
    g, u = _halves(widen(z))
    gate, slope = _SILU.with_derivative(g)
    return narrow(gate * u, z.dtype), gate, u * slope


def _halves(z: Array) -> tuple[Array, Array]:
    half = z.shape[-1] // 2
    return z[..., :half], z[..., half:]
