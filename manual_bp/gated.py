"""SwiGLU: linear units gated by a swish."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from ._blocks import in_blocks, pointwise
from ._precision import narrow, widen
from ._validation import NO_NAMES, require_halves, require_names, require_rows, require_shape
from .activations import SiLU
from .protocol import Array, Cache, Params

_SILU = SiLU()


@dataclass(frozen=True)
class SwiGLU:
    """Linear units gated by a swish: the first half of the last axis gates the second half.

        y = SiLU(g) u, z = (g, u)                       (88)
        du = δ SiLU(g),  dg = δ u SiLU'(g)              (89)

    The layer has no weights. `Sequential(Linear(n, 2m), SwiGLU(), Linear(m, n))` is the feed-forward block of
    transformers; its first W holds their two matrices W and V next to each other.

    Shapes: z (…, 2m), y (…, m), rank 1 or more, m >= 1. Dtypes: floating or object, kept; float16 is computed in
    float32.

    Raises:
        ValueError: for rank 0, a last axis of odd length or length 0, or a delta of another shape.
        TypeError: for a dtype that is not floating.

    Differs from torch's GLU, apart from the swish in place of the logistic: torch takes the gates from the second half;
    here they are the first half, as in the source, SiLU(xW) ⊗ xV.

    Source: docs/derivation.md, eq. (88)–(89); Shazeer 2020, "GLU variants improve transformer", eq. 6.
    """

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: the layer has no parameters."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return SiLU(g) u."""
        require_halves(self, "forward", "z", z)
        require_names(self, "forward", "params", params, NO_NAMES)
        rows = z.reshape(-1, z.shape[-1])
        shape = len(rows), z.shape[-1] // 2
        # The cache of float16 is float32, since both of its arrays are factors.
        y, gate, slope = (np.empty_like(rows, dtype, shape=shape) for dtype in (z.dtype, *[widen(z[:0]).dtype] * 2))
        in_blocks(_write_rows, rows, y, gate, slope)
        y, gate, slope = (part.reshape(*z.shape[:-1], shape[1]) for part in (y, gate, slope))
        return y, (y, gate, slope)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return dg and du, next to each other."""
        y, gate, slope = cache
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        wide = widen(delta)
        return narrow(np.concatenate((wide * slope, wide * gate), axis=-1), y.dtype), {}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return ∂y/∂z for each row of z, shape (N, m, 2m): two diagonal blocks next to each other."""
        require_rows(self, "jacobian", "z", z)
        require_halves(self, "jacobian", "z", z)
        require_names(self, "jacobian", "params", params, NO_NAMES)
        g, u = _halves(z)
        rows, m = g.shape
        result = np.zeros((rows, m, 2 * m), z.dtype)
        gate, slope = pointwise(_SILU.write, g)
        result[:, range(m), range(m)] = u * slope
        result[:, range(m), range(m, 2 * m)] = gate
        return result


def _write_rows(z: Array, y: Array, gate: Array, slope: Array) -> None:
    """Write SiLU(g) u, SiLU(g) and u SiLU'(g): y, ∂y/∂u and ∂y/∂g."""
    g, u = _halves(widen(z))
    _SILU.write(g, gate, slope)
    np.multiply(gate, u, out=y)
    slope *= u


def _halves(z: Array) -> tuple[Array, Array]:
    half = z.shape[-1] // 2
    return z[..., :half], z[..., half:]
