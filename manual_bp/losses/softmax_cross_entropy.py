"""Softmax and cross-entropy in one, so that neither's extremes hurt the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..precision import ones, widen
from ..protocol import Array, Cache
from ..validation import OBJECT, require_rows, require_shape
from .reduction import Reduction, reduce_rows, require_reduction, scale_rows
from .targets import class_indices, require_no_nan


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
        target = self._checked(target, y)
        wide = widen(y)
        starts = np.arange(0, wide.size, wide.shape[1])
        top = starts + wide.argmax(axis=1)  # where each row's m lies in y laid flat: take and put are fast
        shifted = wide - wide.take(top)[:, None]
        e = np.exp(shifted)
        e.put(top, 0)
        rest = e.dot(ones(e.shape[1], e.dtype))
        normalizer = np.log1p(rest)
        if target.ndim == 1:
            target += starts
            rows = normalizer - shifted.take(target)
        else:
            rows = (target * (normalizer[:, None] - shifted)).sum(axis=1)
        return reduce_rows(rows, self.reduction, y.dtype), (e, rest, top, target, y.dtype)

    def backward(self, cache: Cache, delta: Any = 1.0) -> Array:
        """Return (a Σ y* − y*) times delta."""
        e, rest, top, target, dtype = cache
        against = _against_classes if target.ndim == 1 else _against_weights
        return scale_rows(self, against(e, rest, top, target), delta, self.reduction, dtype)

    def _checked(self, target: Array, y: Array) -> Array:
        """Return the target: the weights themselves, or the class indices as a new array."""
        if type(target) is np.ndarray and target.ndim == 1:
            return class_indices(self, target, *y.shape)
        # The target of exact numbers or enclosures is a constant, which may be an ordinary array.
        like = target if y.dtype == OBJECT and type(target) is np.ndarray else y
        require_shape(self, "forward", "target", target, y.shape, like, "y")
        require_no_nan(self, target)
        return target


def _against_weights(e: Array, rest: Array, top: Array, target: Array) -> Array:
    """Return a Σ y* − y*, the row's top entry from the sums that leave it out."""
    target = widen(target)
    weight_of_top = target.take(top)
    others = target.copy()
    others.put(top, 0)
    sum_of_others = others.sum(axis=1)
    norm = 1 + rest
    gradient: Array = e / norm[:, None] * (sum_of_others + weight_of_top)[:, None] - target
    gradient.put(top, (sum_of_others - weight_of_top * rest) / norm)
    return gradient


def _against_classes(e: Array, rest: Array, top: Array, classes: Array) -> Array:
    """Return a − 1[i = class], which is −r/(1 + r) where the class is the top entry."""
    norm = 1 + rest
    gradient: Array = e / norm[:, None]
    gradient.put(top, 1 / norm)
    top_gradient = -rest / norm
    gradient.put(classes, np.where(classes == top, top_gradient, gradient.take(classes) - 1))
    return gradient
