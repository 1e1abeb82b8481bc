"""Softmax and cross-entropy in one, so that neither's extremes hurt the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..exponentials import against_classes, against_weights, exponentials
from ..precision import widen
from ..protocol import Array, Cache
from ..validation import require_rows
from .reduction import Reduction, reduce_rows, require_reduction, scale_rows
from .targets import class_indices, weights_like


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
    With class weights, smoothing, rows left out or several places: `CrossEntropy`.
    """

    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)

    def forward(self, y: Array, target: Array) -> tuple[Any, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        target = self._checked(target, y)
        found = exponentials(widen(y))
        normalizer = np.log1p(found.rest)
        if target.ndim == 1:
            target += found.starts
            rows = normalizer - found.shifted.take(target)
        else:
            rows = (target * (normalizer[:, None] - found.shifted)).sum(axis=1)
        return reduce_rows(rows, self.reduction, y.dtype), (found, target, y.dtype)

    def backward(self, cache: Cache, delta: Any = 1.0) -> Array:
        """Return (a Σ y* − y*) times delta."""
        found, target, dtype = cache
        gradient = against_classes(found, target) if target.ndim == 1 else against_weights(found, widen(target))
        return scale_rows(self, gradient, delta, self.reduction, dtype)

    def _checked(self, target: Array, y: Array) -> Array:
        """Return the target: the weights themselves, or the class indices as a new array."""
        if type(target) is np.ndarray and target.ndim == 1:
            return class_indices(self, target, y.shape[:1], y.shape[1])
        return weights_like(self, target, y)
