"""Softmax and cross-entropy in one, so that neither's extremes hurt the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..precision import ones, widen
from ..protocol import Array, Cache
from ..validation import OBJECT, require_rows, require_shape
from .reduction import Reduction, reduce_rows, require_reduction, scale_rows
from .targets import require_classes, require_no_nan


class _Saved(NamedTuple):
    e: Array  # e^{y_k − y_m}, 0 in place of the 1 at k = m
    rest: Array  # the sum of e over each row
    top: tuple[Array, Array]  # the index of every row's m
    target: Array
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """L = −Σ_i y*_i log a_i, a = softmax(y), for each row (22)–(23); δ^n = a Σ y* − y* (24)–(25).

    Where Σ y* = 1, as for class indices, δ^n is a − y*.

    With m the largest entry of a row, e_k = e^{y_k − y_m} and r = Σ_{k≠m} e_k, nothing cancels in
    saturation: −log a_k = log1p(r) − (y_k − y_m), 1 − a_m = r/(1 + r), and δ_m = a_m Σ_{k≠m} y*_k − y*_m
    r/(1 + r).

    Reduction over the rows: "mean" (the default) divides L and δ^n by N, not by the number of entries;
    "sum" adds the rows; "none" returns one value for each row, and `backward` then takes one delta for
    each row.

    Shapes: y (N, n), n >= 1; target (N, n) of weights, which need not sum to 1, or (N,) of class indices;
    value () or, unreduced, (N,). With N = 0 sum and mean are 0.
    Dtypes: y floating, weights of the same dtype, class indices of any integer dtype; value and gradient
    have y's dtype; float16 is computed in float32.
    Raises: ValueError for a wrong shape, NaN in the target or a class out of range, TypeError for a wrong
    dtype.
    """

    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)

    def forward(self, y: Array, target: Array) -> tuple[Any, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        weighted = self._checked(target, y)
        wide = widen(y)
        top = np.arange(len(y)), wide.argmax(axis=1)
        shifted = wide - wide[top][:, None]
        e = np.exp(shifted)
        e[top] = 0
        rest = e.dot(ones(e.shape[1], e.dtype))
        normalizer = np.log1p(rest)
        if weighted:
            rows = (target * (normalizer[:, None] - shifted)).sum(axis=1)
        else:
            rows = normalizer - shifted[top[0], target]
        return reduce_rows(rows, self.reduction, y.dtype), _Saved(e, rest, top, target, y.dtype)

    def backward(self, cache: Cache, delta: Any = 1.0) -> Array:
        """Return (a Σ y* − y*) times delta."""
        gradient = _against_weights(cache) if cache.target.ndim == 2 else _against_classes(cache)
        return scale_rows(self, gradient, delta, self.reduction, cache.dtype)

    def _checked(self, target: Array, y: Array) -> bool:
        """Return whether the target is of weights rather than of class indices."""
        if type(target) is np.ndarray and target.ndim == 1:
            require_classes(self, target, *y.shape)
            return False
        # The target of exact numbers or enclosures is a constant, which may be an ordinary array.
        like = target if y.dtype == OBJECT and type(target) is np.ndarray else y
        require_shape(self, "forward", "target", target, y.shape, like, "y")
        require_no_nan(self, target)
        return True


def _against_weights(saved: _Saved) -> Array:
    """Return a Σ y* − y*, the row's top entry from the sums that leave it out."""
    e, rest, top, target, _ = saved
    target = widen(target)
    others = target.copy()
    others[top] = 0
    sum_of_others = others.sum(axis=1)
    weight_of_top = target[top]
    norm = 1 + rest
    gradient: Array = e / norm[:, None] * (sum_of_others + weight_of_top)[:, None] - target
    gradient[top] = (sum_of_others - weight_of_top * rest) / norm
    return gradient


def _against_classes(saved: _Saved) -> Array:
    """Return a − 1[i = class], which is −r/(1 + r) where the class is the top entry."""
    e, rest, top, target, _ = saved
    rows, m = top
    miss = target != m
    gradient: Array = e.copy()
    gradient[top] = miss
    gradient[rows, target] -= rest + miss
    gradient /= (1 + rest)[:, None]
    return gradient
