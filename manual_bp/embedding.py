"""Embedding: rows of a table, looked up by index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from ._blocks import blocks
from ._precision import narrow, widen
from ._validation import real_dtype, require_count, require_indices, require_names, require_ranked, require_shape
from .protocol import Array, Cache, Params

_NAMES = frozenset({"W"})


@dataclass(frozen=True)
class Embedding:
    """Embedding: the rows of a table W, looked up by index.

        y_n = W_{z_n} = Σ_k 1[z_n = k] W_k              (52)
        ∂L/∂W_k = Σ_{n: z_n = k} δ_n                    (53)

    A row of W gets the cotangents of all entries of z that name it, and 0 if there are none. Indices have no cotangent:
    the layer's dz is None.

    Args:
        n_entries: the number of rows of W.
        n_out: the number of columns of W.
        padding_idx: an index for which y is 0, whatever its row of W contains, and whose row has gradient 0.

    Shapes: z any, also (); W (n_entries, n_out); y and delta z.shape + (n_out,).
    Dtypes: z of integers; W, y and gradients share one of float16, float32, float64, longdouble, object; float16 is
    summed in float32.

    Raises:
        ValueError: for an index outside 0 … n_entries − 1 (negative ones do not count from the end), a wrong shape or
            parameter name.
        TypeError: for a wrong dtype.

    Differs from torch's: at padding_idx torch gives that row of W, but a gradient as if y did not depend on it; here y
    does not depend on it. Both agree if the row is 0, as both initialize it. There is no max_norm and no sparse
    gradient.

    Source: docs/derivation.md, eq. (52)–(53).
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
        """Draw W from a normal distribution of variance 1; the row of padding_idx is zero."""
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
        y: Array = W.take(z.astype(np.intp, copy=False), axis=0)
        if self.padding_idx is not None:
            y[z == self.padding_idx] = 0
        return y, (z, y)

    def backward(self, cache: Cache, delta: Array) -> tuple[None, Params]:
        """Return None, and by (53) the sums of δ over the entries of each index."""
        z, y = cache
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        indices, rows = z.astype(np.intp, copy=False).ravel(), delta.reshape(z.size, self.n_out)
        if self.padding_idx is not None:
            is_entry = indices != self.padding_idx
            indices, rows = indices[is_entry], rows[is_entry]
        return None, {"W": _sum_by_index(indices, rows, self.n_entries)}


def _sum_by_index(indices: Array, rows: Array, n_entries: int) -> Array:
    """Return Σ rows over equal indices."""
    dW: Array = np.zeros((n_entries, rows.shape[1]), rows.dtype)
    if not len(indices):
        return dW
    order = indices.argsort(kind="stable")  # stable, so that the order of addition is that of the input
    indices = indices[order]
    is_bound = np.ones(len(indices) + 1, bool)
    np.not_equal(indices[1:], indices[:-1], out=is_bound[1:-1])
    bounds = np.flatnonzero(is_bound)
    starts, counts = bounds[:-1], bounds[1:] - bounds[:-1]
    # A row whose index occurs once is copied; only the others are added, and for that sorted.
    is_single = counts == 1
    for some in blocks(rows):  # of the copies' source and destination one fits in cache
        single = starts[some][is_single[some]]
        dW[indices[single]] = rows.take(order[single], axis=0)
    several = ~is_single
    if several.any():
        order = order[np.repeat(several, counts)]
        dW[indices[starts[several]]] = narrow(_sum_runs(widen(rows.take(order, axis=0)), counts[several]), dW.dtype)
    return dW


def _sum_runs(rows: Array, counts: Array) -> Array:
    """Return the sums of runs of rows, pairwise: log₂ of the longest run's length passes; overwrite the rows."""
    # np.add.at adds one row after another: slow, and its error grows with the count; pairs of pairs with its logarithm.
    starts = counts.cumsum() - counts
    rank = np.arange(len(rows)) - np.repeat(starts, counts)
    positions, step = np.flatnonzero(rank), 1
    while len(positions):  # add each row whose rank is an odd multiple of the step to the one a step before it
        odd = rank[positions] & step != 0  # steps are powers of two
        rows[positions[odd] - step] += rows[positions[odd]]
        positions, step = positions[~odd], 2 * step
    sums: Array = rows[starts]
    return sums
