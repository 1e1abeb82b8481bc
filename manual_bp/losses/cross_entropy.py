"""Cross-entropy as it is used: weighted, smoothed, with entries left out, at any number of places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..exponentials import Exponentials, against_classes, against_weights, exponentials
from ..precision import scalar, widen
from ..protocol import Array, Cache
from ..rows import array_of, rows_along
from ..validation import require_axis, require_fraction, require_integer, require_nonnegative, require_positive
from .reduction import Reduction, reduce_rows, require_reduction, scale_rows
from .targets import class_indices, weights_like


class _Weights(NamedTuple):
    """What the rows weigh, wq: their own weight at the place of their class in y laid flat, or one for each class.

    Beside it, which rows are ignored, and what a mean divides by.
    """

    places: Any
    of_row: Array | None
    of_class: Array | None
    ignored: Array | None
    total: Any


@dataclass(frozen=True)
class CrossEntropy:
    """L = −Σ_k w_k q_k log a_k, a = softmax(y/T), q = (1 − ε)y* + ε/C, for each row (90); δ^n = (a Σ wq − wq)/T (91).

    w are the class weights (1 by default), ε the smoothing, T the temperature, C the number of classes. The
    plain case on rows is `SoftmaxCrossEntropy`, (22)–(25), with which it shares what keeps the digits.

    The classes lie on axis 1 of y; every other entry is a row. A target of the rank of y holds y*, which
    need not sum to 1; one of a rank less holds class indices, y* = 1[k = c], and rows of class
    `ignore_index` have L = 0 and δ^n = 0, whatever their y.

    Reduction: "mean" (the default) is Σ L / Σ w_c over the rows that count, for class indices (92), and Σ L
    / rows for a target of y*'s, as in torch; "sum" adds the rows; "none" returns a value for each row, and
    `backward` then takes one delta for each row.

    Shapes: y (N, C, …), C >= 1; target (N, C, …) or, of class indices, (N, …); value () or, unreduced, (N, …).
    Dtypes: y floating, y* of the same dtype, class indices of any integer dtype; value and gradient have
    y's dtype; float16 is computed in float32.
    Raises: ValueError for a wrong shape, NaN in the target, a class out of range, y*'s where rows are to be
    ignored, and for weights below 0, ε outside [0, 1] or T <= 0; TypeError for a wrong dtype.
    Differs from torch's CrossEntropyLoss: a mean in which no row counts is 0 and not NaN, as the mean over
    no rows is everywhere here; `ignore_index` is None and not −100 unless one is asked for, since a class
    out of range is more often a mistake; T is ours.
    Source: spec (22)–(25); ε: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7; T:
    Hinton, Vinyals & Dean 2015, eq. 1.
    """

    reduction: Reduction = "mean"
    class_weights: Any = None
    ignore_index: int | None = None
    smoothing: Any = 0.0
    temperature: Any = 1.0

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)
        if self.class_weights is not None:
            if not isinstance(self.class_weights, Iterable):
                raise TypeError(f"CrossEntropy: class_weights: expected one number a class, got {self.class_weights!r}")
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
            for k, weight in enumerate(self.class_weights):
                require_nonnegative(self, "", f"class_weights[{k}]", weight)
        if self.ignore_index is not None:
            require_integer(self, "", "ignore_index", self.ignore_index)
        require_fraction(self, "", "smoothing", self.smoothing, or_one=True)
        require_positive(self, "", "temperature", self.temperature)

    def forward(self, y: Array, target: Array) -> tuple[Any, Cache]:
        """Return L."""
        require_axis(self, "forward", "y", y, 1)
        wide = widen(rows_along(y, 1))
        found = exponentials(wide, None if self.temperature == 1 else scalar(self.temperature, wide))
        weights = self._weights(target, y, found)
        minus_log = np.log1p(found.rest)
        if weights.of_class is not None:
            rows = (weights.of_class * (minus_log[:, None] - found.shifted)).sum(axis=1)
        else:
            rows = minus_log - found.shifted.take(weights.places)
            if weights.of_row is not None:
                rows = weights.of_row * rows
        if weights.ignored is not None:
            rows[weights.ignored] = 0
        value = reduce_rows(rows, self.reduction, y.dtype, weights.total)
        return value.reshape(_places(y)) if self.reduction == "none" else value, (found, weights, y)

    def backward(self, cache: Cache, delta: Any = 1.0) -> Array:
        """Return (a Σ wq − wq)/T times delta."""
        found, weights, y = cache
        if weights.of_class is not None:
            gradient = against_weights(found, weights.of_class)
        else:
            gradient = against_classes(found, weights.places)
            if weights.of_row is not None:
                gradient = weights.of_row[:, None] * gradient
        if weights.ignored is not None:
            gradient[weights.ignored] = 0
        if self.temperature != 1:
            gradient /= scalar(self.temperature, gradient)
        scaled = scale_rows(self, gradient, delta, self.reduction, y.dtype, weights.total, _places(y))
        return array_of(scaled, y.shape, 1)

    def _weights(self, target: Array, y: Array, found: Exponentials) -> _Weights:
        e = found.e
        w = None if self.class_weights is None else np.array(self.class_weights, e.dtype)
        if w is not None and len(w) != e.shape[1]:
            raise ValueError(
                f"CrossEntropy.forward: y: expected {len(w)} classes, as many as weights, got {e.shape[1]}"
            )
        if type(target) is np.ndarray and target.ndim == y.ndim - 1:
            indices = class_indices(self, target, _places(y), e.shape[1], self.ignore_index)
            return self._of_classes(indices.ravel(), w, found)
        if self.ignore_index is not None:
            message = f"ignore_index is for class indices of shape {_places(y)}, got shape {np.shape(target)}"
            raise ValueError(f"CrossEntropy.forward: target: {message}")
        q = widen(rows_along(weights_like(self, target, y), 1))
        if self.smoothing:
            q = (1 - scalar(self.smoothing, q)) * q + scalar(self.smoothing, q) / e.shape[1]
        return _Weights(None, None, q if w is None else w * q, None, len(q))

    def _of_classes(self, indices: Array, w: Array | None, found: Exponentials) -> _Weights:
        """Return the weights of rows that have a class: for each class only where smoothing spreads it."""
        ignored = None if self.ignore_index is None else indices == self.ignore_index
        if ignored is not None:
            indices[ignored] = 0
        of_row = None if w is None else w.take(indices)
        if ignored is None:
            total = len(indices) if of_row is None else of_row.sum()
        else:
            total = int(np.count_nonzero(~ignored)) if of_row is None else of_row[~ignored].sum()
        places = indices + found.starts
        if not self.smoothing:
            return _Weights(places, of_row, None, ignored, total)
        q = np.full_like(found.e, scalar(self.smoothing, found.e) / found.e.shape[1])
        q.put(places, q.take(places) + (1 - scalar(self.smoothing, q)))
        return _Weights(None, None, q if w is None else w * q, ignored, total)


def _places(y: Array) -> tuple[int, ...]:
    """Return the shape of what has one entry for each row."""
    return y.shape[0], *y.shape[2:]
