"""Cross-entropies: of the logistic function, of softmax on rows, and of softmax in full generality."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ._blocks import array_of, in_blocks, rows_along
from ._precision import log1p, scalar, widen
from ._reduction import Reduction, class_indices, reduce_rows, require_reduction, scale_rows, weights_like
from ._validation import (
    OBJECT,
    require_axis,
    require_fraction,
    require_integer,
    require_nonnegative,
    require_positive,
    require_rows,
    require_shape,
)
from .activations import decaying
from .protocol import Array, Cache, Number
from .softmax import Exponentials, classes_gradient, exponentials, weights_gradient


@dataclass(frozen=True)
class BinaryCrossEntropyWithLogits:
    """Binary cross-entropy of the logistic function s = 1/(1 + e^{−y}), for each row.

        L = −Σ_j [p_j t_j log s_j + (1 − t_j) log(1 − s_j)]                        (93)
        δ^n = (1 − t) s − p t (1 − s)                                              (94)

    t is the target, p the weight of its positives. With e = e^{−|y|} and l = log1p(e): −log s is l for y >= 0 and
    l − y below, −log(1 − s) is y + l and l, and s and 1 − s are 1/(1 + e) and e/(1 + e) in this order or the other. For
    t in [0, 1] only numbers of one sign are added in L, and δ^n cancels only near its root.

    Args:
        reduction: "mean" divides the sum over the rows, and δ^n, by N, not by the number of entries; "sum" adds the
            rows; "none" returns one value for each row, and `backward` then takes one delta for each row.
        pos_weight: p, one number or one for each column, nonnegative; None for 1.

    Shapes: y and target (N, n), n >= 1; value () or, unreduced, (N,). With N = 0 sum and mean are 0.
    Dtypes: y and target share a floating dtype, which value and gradient have too; float16 is computed in float32.

    Raises:
        ValueError: for a wrong shape, NaN in the target, a negative p or a wrong number of p.
        TypeError: for a wrong or mixed dtype.

    Differs from torch's BCEWithLogitsLoss: torch's mean is over the N n entries, here over the rows as in every loss;
    and torch's (1 − t)y − log s cancels, which leaves a loss of 3.56e-11, at y = −24 and t = 0, five digits.

    Source: docs/derivation.md, eq. (93)–(94).
    """

    reduction: Reduction = "mean"
    pos_weight: Number | tuple[Number, ...] | None = None

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)
        if isinstance(self.pos_weight, Iterable) and not isinstance(self.pos_weight, str):
            object.__setattr__(self, "pos_weight", tuple(self.pos_weight))
            for j, weight in enumerate(self.pos_weight):
                require_nonnegative(self, "", f"pos_weight[{j}]", weight)
        elif self.pos_weight is not None:
            require_nonnegative(self, "", "pos_weight", self.pos_weight)

    def forward(self, y: Array, target: Array) -> tuple[Number, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        wide, t = widen(y), widen(weights_like(self, target, y))
        losses, gradient = np.empty_like(wide, shape=len(y)), np.empty_like(wide)
        in_blocks(self._write_rows, wide, t, losses, gradient)
        return reduce_rows(losses, self.reduction, y.dtype), (gradient, y.dtype)

    def backward(self, cache: Cache, delta: Number = 1.0) -> Array:
        """Return ((1 − t) s − p t (1 − s)) times delta."""
        gradient, dtype = cache
        return scale_rows(self, gradient.copy(), delta, self.reduction, dtype)

    def _write_rows(self, y: Array, t: Array, losses: Array, gradient: Array) -> None:
        """Write (93) of each row, and (94), which shares its exponential."""
        positives, negatives = self._weigh(t), 1 - t
        e = decaying(y)
        above = 1 + e
        # s = 1/(1 + e) for y >= 0 and e/(1 + e) below; 1 − s is s of −y.
        np.multiply(negatives, _one_or(e, y >= 0), out=gradient)
        gradient -= positives * _one_or(e, y <= 0)
        gradient /= above
        # −log s of |y|; log(1 + e) would be 0 once e is below the roundoff.
        minus_log = log1p(e, above)
        # Of equal exact numbers the maximum is the first: at 0, as in −|y|, that of y >= 0.
        terms = positives * (minus_log + np.maximum(0, -y))
        terms += negatives * (minus_log + np.maximum(y, 0))
        terms.sum(axis=1, out=losses)

    def _weigh(self, t: Array) -> Array:
        """Return p t."""
        if self.pos_weight is None:
            return t
        if not isinstance(self.pos_weight, tuple):
            return np.asanyarray(scalar(self.pos_weight, t) * t)
        p = np.array(self.pos_weight, t.dtype)
        require_shape(self, "forward", "pos_weight", p, t.shape[1:], t, "y")
        return np.asanyarray(p * t)


def _one_or(e: Array, is_one: Array) -> Array:
    """Return 1 where that holds and e elsewhere."""
    # As e <= 1, the choice is a maximum: np.where takes a branch for each entry, mispredicted half the time.
    result: Array = np.where(is_one, 1, e) if e.dtype == OBJECT else np.maximum(is_one, e)
    return result


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Cross-entropy of softmax for each row, in one operation, so that nothing cancels where softmax saturates.

        L = −Σ_i y*_i log a_i, a = softmax(y)                                      (22)–(23)
        δ^n = a Σ y* − y*, which is a − y* where Σ y* = 1                          (24)–(25)

    With m the largest entry of a row, e_k = e^{y_k − y_m} and r = Σ_{k≠m} e_k: −log a_k = log1p(r) − (y_k − y_m),
    1 − a_m = r/(1 + r), and δ_m = a_m Σ_{k≠m} y*_k − y*_m r/(1 + r). `CrossEntropy` adds class weights, smoothing,
    ignored rows and further axes.

    Args:
        reduction: "mean" divides the sum over the rows, and δ^n, by N, not by the number of entries; "sum" adds the
            rows; "none" returns one value for each row, and `backward` then takes one delta for each row.

    Shapes: y (N, n), n >= 1; target (N, n) of weights, which need not sum to 1, or (N,) of class indices;
    value () or, unreduced, (N,). With N = 0 sum and mean are 0.
    Dtypes: y floating, weights of the same dtype, class indices of any integer dtype; value and gradient have y's
    dtype; float16 is computed in float32.

    Raises:
        ValueError: for a wrong shape, NaN in the target or a class out of range.
        TypeError: for a wrong dtype.

    Source: docs/derivation.md, eq. (22)–(25).
    """

    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)

    def forward(self, y: Array, target: Array) -> tuple[Number, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        target = self._check_target(target, y)
        exp = exponentials(widen(y))
        normalizer = np.log1p(exp.rest)
        if target.ndim == 1:
            target += exp.starts
            rows = normalizer - exp.shifted.take(target)
        else:
            rows = (target * (normalizer[:, None] - exp.shifted)).sum(axis=1)
        return reduce_rows(rows, self.reduction, y.dtype), (exp, target, y.dtype)

    def backward(self, cache: Cache, delta: Number = 1.0) -> Array:
        """Return (a Σ y* − y*) times delta."""
        exp, target, dtype = cache
        gradient = classes_gradient(exp, target) if target.ndim == 1 else weights_gradient(exp, widen(target))
        return scale_rows(self, gradient, delta, self.reduction, dtype)

    def _check_target(self, target: Array, y: Array) -> Array:
        """Check the target and return it: weights as they are, class indices as a new array."""
        if type(target) is np.ndarray and target.ndim == 1:
            return class_indices(self, target, y.shape[:1], y.shape[1])
        return weights_like(self, target, y)


class _Weights(NamedTuple):
    """The weights wq of the rows: either one weight per row for its class, or one for each class of each row.

    With plain class indices, `classes` are their flat indices in y and `row_weights` their weights. Otherwise
    `class_weights` is wq, and `classes` is not used. `ignored` says which rows are ignored, `total` is the divisor of a
    mean.
    """

    classes: Array
    row_weights: Array | None
    class_weights: Array | None
    ignored: Array | None
    total: Number


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of softmax with class weights, smoothing, temperature, ignored rows and any number of axes.

        L = −Σ_k w_k q_k log a_k, a = softmax(y/T), q = (1 − ε)y* + ε/C, for each row   (90)
        δ^n = (a Σ wq − wq)/T                                                           (91)

    C is the number of classes, which lie on axis 1 of y; the entries along all other axes are rows. A target of the
    rank of y contains y*, which need not sum to 1; one of a rank less contains class indices, y* = 1[k = c].

    Args:
        reduction: "mean" divides Σ L by Σ w_c over the rows that count, for class indices (92), and by the number of
            rows for a target of y*, as torch does; "sum" adds the rows; "none" returns a value for each row, and
            `backward` then takes one delta for each row.
        class_weights: w, nonnegative, one for each class; None for 1.
        ignore_index: a class whose rows have L = 0 and δ^n = 0, whatever their y.
        smoothing: ε, in [0, 1].
        temperature: T, positive.

    Shapes: y (N, C, …), C >= 1; target (N, C, …) or, of class indices, (N, …); value () or, unreduced, (N, …).
    Dtypes: y floating, y* of the same dtype, class indices of any integer dtype; value and gradient have y's dtype;
    float16 is computed in float32.

    Raises:
        ValueError: for a wrong shape, NaN in the target, a class out of range, y* together with ignore_index, negative
            weights, ε outside [0, 1] or T <= 0.
        TypeError: for a wrong dtype.

    Differs from torch's CrossEntropyLoss: a mean in which no row counts is 0 and not NaN, as the mean over no rows is
    everywhere here; `ignore_index` is None and not −100 by default, since a class out of range is more often a mistake;
    torch has no T.

    Source: docs/derivation.md, eq. (22)–(25), (90)–(92); ε: Szegedy et al. 2016, "Rethinking the Inception
    architecture", section 7; T: Hinton, Vinyals & Dean 2015, eq. 1.
    """

    reduction: Reduction = "mean"
    class_weights: tuple[Number, ...] | None = None
    ignore_index: int | None = None
    smoothing: Number = 0.0
    temperature: Number = 1.0

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)
        if self.class_weights is not None:
            if not isinstance(self.class_weights, Iterable):
                raise TypeError(
                    f"CrossEntropy: class_weights: expected one number for each class, got {self.class_weights!r}"
                )
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
            for k, weight in enumerate(self.class_weights):
                require_nonnegative(self, "", f"class_weights[{k}]", weight)
        if self.ignore_index is not None:
            require_integer(self, "", "ignore_index", self.ignore_index)
        require_fraction(self, "", "smoothing", self.smoothing, or_one=True)
        require_positive(self, "", "temperature", self.temperature)

    def forward(self, y: Array, target: Array) -> tuple[Number, Cache]:
        """Return L."""
        require_axis(self, "forward", "y", y, 1)
        wide = widen(rows_along(y, 1))
        exp = exponentials(wide, None if self.temperature == 1 else scalar(self.temperature, wide))
        weights = self._weights(target, y, exp)
        minus_log = np.log1p(exp.rest)
        if weights.class_weights is not None:
            rows = (weights.class_weights * (minus_log[:, None] - exp.shifted)).sum(axis=1)
        else:
            rows = minus_log - exp.shifted.take(weights.classes)
            if weights.row_weights is not None:
                rows = weights.row_weights * rows
        if weights.ignored is not None:
            rows[weights.ignored] = 0  # written, not multiplied: an ignored row may hold NaN or infinity
        value = reduce_rows(rows, self.reduction, y.dtype, weights.total)
        return value.reshape(_rows_shape(y)) if self.reduction == "none" else value, (exp, weights, y)

    def backward(self, cache: Cache, delta: Number = 1.0) -> Array:
        """Return (a Σ wq − wq)/T times delta."""
        exp, weights, y = cache
        if weights.class_weights is not None:
            gradient = weights_gradient(exp, weights.class_weights)
        else:
            gradient = classes_gradient(exp, weights.classes)
            if weights.row_weights is not None:
                gradient = weights.row_weights[:, None] * gradient
        if weights.ignored is not None:
            gradient[weights.ignored] = 0  # written, not multiplied: an ignored row may hold NaN or infinity
        if self.temperature != 1:
            gradient /= scalar(self.temperature, gradient)
        scaled = scale_rows(self, gradient, delta, self.reduction, y.dtype, weights.total, _rows_shape(y))
        return array_of(scaled, y.shape, 1)

    def _weights(self, target: Array, y: Array, exp: Exponentials) -> _Weights:
        e = exp.e
        w = None if self.class_weights is None else np.array(self.class_weights, e.dtype)
        if w is not None and len(w) != e.shape[1]:
            raise ValueError(
                f"CrossEntropy.forward: y: expected {len(w)} classes, as many as weights, got {e.shape[1]}"
            )
        if type(target) is np.ndarray and target.ndim == y.ndim - 1:
            indices = class_indices(self, target, _rows_shape(y), e.shape[1], self.ignore_index)
            return self._of_classes(indices.ravel(), w, exp)
        if self.ignore_index is not None:
            expected = f"class indices of shape {_rows_shape(y)}, since there is an ignore_index"
            raise ValueError(f"CrossEntropy.forward: target: expected {expected}, got shape {np.shape(target)}")
        q = widen(rows_along(weights_like(self, target, y), 1))
        if self.smoothing:
            q = (1 - scalar(self.smoothing, q)) * q + scalar(self.smoothing, q) / e.shape[1]
        return _Weights(exp.starts, None, q if w is None else w * q, None, len(q))

    def _of_classes(self, indices: Array, w: Array | None, exp: Exponentials) -> _Weights:
        """Return the weights for class indices; one for each class of each row only if they are smoothed."""
        ignored = None if self.ignore_index is None else indices == self.ignore_index
        if ignored is not None:
            indices[ignored] = 0  # any valid class, so that the look-ups below stay in range
        row_weights = None if w is None else w.take(indices)
        if ignored is None:
            total = len(indices) if row_weights is None else row_weights.sum()
        else:
            total = int(np.count_nonzero(~ignored)) if row_weights is None else row_weights[~ignored].sum()
        flat = indices + exp.starts
        if not self.smoothing:
            return _Weights(flat, row_weights, None, ignored, total)
        q = np.full_like(exp.e, scalar(self.smoothing, exp.e) / exp.e.shape[1])
        q.put(flat, q.take(flat) + (1 - scalar(self.smoothing, q)))
        return _Weights(exp.starts, None, q if w is None else w * q, ignored, total)


def _rows_shape(y: Array) -> tuple[int, ...]:
    """Return the shape of an array with one entry for each row."""
    return y.shape[0], *y.shape[2:]
