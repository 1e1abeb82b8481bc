"""Rows of a table, looked up by index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from ..precision import narrow, widen
from ..protocol import Array, Cache, Params
from ..validation import real_dtype, require_count, require_indices, require_names, require_ranked, require_shape

_NAMES = frozenset({"W"})


@dataclass(frozen=True)
class Embedding:
    """y_n = W_{z_n}, the row of W that the index z_n names (52); ∂L/∂W_k = Σ_{n: z_n = k} δ_n (53).

    From y_nj = Σ_k 1[z_n = k] W_kj: a row gets the cotangents of all places that name it, none where there are none.
    With `padding_idx`, y is 0 where that index stands, whatever its row of W holds, and the row's gradient is 0.
    Indices have no cotangent: the layer's dz is None.

    Shapes: z any, () too; W (n_entries, n_out); y and delta z.shape + (n_out,). Dtypes: z of integers; W, y and
    gradients share one of float16, float32, float64, longdouble, object; float16 is summed in float32.
    Raises: ValueError for an index out of 0 … n_entries − 1 (none counts from the end), and for a wrong shape or
    parameter name, TypeError for a wrong dtype.
    Differs from torch's: at padding_idx torch gives that row of W, and says that y does not depend on it; here it does
    not. Both agree where the row is 0, as both initialize it. There is no renorming, and no sparse gradient.
    """

    n_entries: int
    n_out: int
    padding_idx: int | None = None

    def __post_init__(self) -> None:
        require_count(self, "", "n_entries", self.n_entries)
        require_count(self, "", "n_out", self.n_out)
        if self.padding_idx is not None:
            require_indices(self, "", "padding_idx", np.asarray(self.padding_idx), self.n_entries)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw W from a normal law of variance 1; the row of padding_idx is zero."""
        W = rng.standard_normal((self.n_entries, self.n_out)).astype(real_dtype(self, dtype))
        if self.padding_idx is not None:
            W[self.padding_idx] = 0
        return {"W": W}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return W's rows by (52)."""
        require_indices(self, "forward", "z", z, self.n_entries)
        require_names(self, "forward", "params", params, _NAMES)
        W = params["W"]
        require_ranked(self, "forward", "params['W']", W)
        require_shape(self, "forward", "params['W']", W, (self.n_entries, self.n_out), W, "W")
        y: Array = W.take(z.astype(np.intp), axis=0)
        if self.padding_idx is not None:
            y[z == self.padding_idx] = 0
        return y, (z, y)

    def backward(self, cache: Cache, delta: Array) -> tuple[None, Params]:
        """Return None, and by (53) the sums of δ over the places of each index."""
        z, y = cache
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        indices, rows = z.astype(np.intp).ravel(), delta.reshape(z.size, self.n_out)
        if self.padding_idx is not None:
            named = indices != self.padding_idx
            indices, rows = indices[named], rows[named]
        return None, {"W": _summed(indices, rows, self.n_entries)}


def _summed(indices: Array, rows: Array, n_entries: int) -> Array:
    """Return Σ rows over equal indices, pairwise: as few passes as the logarithm of the most frequent one's count."""
    dW: Array = np.zeros((n_entries, rows.shape[1]), rows.dtype)
    if not len(indices):
        return dW
    order = indices.argsort(kind="stable")
    indices, rows = indices[order], widen(rows.take(order, axis=0))
    starts = np.flatnonzero(np.concatenate(([True], indices[1:] != indices[:-1])))
    rank = np.arange(len(indices)) - np.repeat(starts, np.diff(starts, append=len(indices)))
    places, step = np.flatnonzero(rank), 1
    while len(places):  # a row whose rank is an odd multiple of the step adds to the one a step before it
        odd = (rank[places] // step) % 2 == 1
        rows[places[odd] - step] += rows[places[odd]]
        places, step = places[~odd], 2 * step
    dW[indices[starts]] = narrow(rows[starts], dW.dtype)
    return dW
