"""Linear: the fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import DTypeLike

from ._precision import narrow, ones, widen
from ._validation import real_dtype, require_affine, require_count, require_flag, require_shape
from .protocol import Array, Cache, Params


@dataclass(frozen=True)
class Linear:
    """Fully connected layer: an affine map of each row.

        y = zW + b
        ∂L/∂W = zᵀδ                     (8)
        ∂L/∂b = Σ_rows δ                (9)
        ∂L/∂z = δWᵀ                     (15)

    Args:
        n_in: the number of columns of z.
        n_out: the number of columns of y.
        bias: whether there is a b.

    Shapes: z (N, n_in), y (N, n_out), W (n_in, n_out), b (1, n_out); N may be 0.
    Dtypes: z, W, b share one of float16, float32, float64, longdouble, object; y and gradients have it too.

    Raises:
        ValueError: for a wrong shape or parameter name.
        TypeError: for a wrong or mixed dtype.

    Source: docs/derivation.md, eq. (5)–(9), (15); initial weights: He et al. 2015, "Delving Deep into Rectifiers",
    eq. 10.
    """

    n_in: int
    n_out: int
    bias: bool = True

    def __post_init__(self) -> None:
        require_count(self, "", "n_in", self.n_in)
        require_count(self, "", "n_out", self.n_out)
        require_flag(self, "bias", self.bias)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw W from a normal distribution of variance 2/n_in, which keeps a ReLU network's scale; b is zero."""
        dtype = real_dtype(self, dtype)
        params = {"W": (rng.standard_normal((self.n_in, self.n_out)) * sqrt(2 / self.n_in)).astype(dtype)}
        if self.bias:
            params["b"] = np.zeros((1, self.n_out), dtype)
        return params

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return y = zW + b."""
        require_affine(self, "forward", z, self.n_in, params, _shapes(self.n_in, self.n_out, self.bias))
        W = params["W"]
        y = widen(z).dot(widen(W))
        if self.bias:
            y += widen(params["b"])
        return narrow(y, z.dtype), (z, W)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return δWᵀ (15), and zᵀδ (8) with the sum of δ over the rows (9)."""
        z, W = cache
        require_shape(self, "backward", "delta", delta, (len(z), self.n_out), z, "y")
        wide = widen(delta)
        dparams = {"W": narrow(widen(z).T.dot(wide), z.dtype)}
        if self.bias:
            dparams["b"] = narrow(ones((1, len(z)), wide.dtype).dot(wide), z.dtype)
        return narrow(wide.dot(widen(W).T), z.dtype), dparams

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return ∂y_j/∂z_i = W_ij, the same for every row: Wᵀ, shape (1, n_out, n_in)."""
        require_affine(self, "jacobian", z, self.n_in, params, _shapes(self.n_in, self.n_out, self.bias))
        return params["W"].T[None].copy()


@lru_cache
def _shapes(n_in: int, n_out: int, bias: bool) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes by name."""
    W, b = (n_in, n_out), (1, n_out)
    return {"W": W, "b": b} if bias else {"W": W}
