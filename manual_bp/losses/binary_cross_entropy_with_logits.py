"""Binary cross-entropy of the logistic function, in one, so that neither's extremes hurt the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..activations.elementwise import logistic, minus_magnitude
from ..blocks import rowwise
from ..precision import scalar, widen
from ..protocol import Array, Cache
from ..validation import require_nonnegative, require_rows, require_shape
from .reduction import Reduction, reduce_rows, require_reduction, scale_rows
from .targets import weights_like


@dataclass(frozen=True)
class BinaryCrossEntropyWithLogits:
    """L = −Σ_j [p_j t_j log s_j + (1 − t_j) log(1 − s_j)], s = 1/(1 + e^{−y}), for each row (93).

    δ^n = (1 − t) s − p t (1 − s) (94). t is the target, p the weight of its positives, 1 by default, one
    number or one for each column.

    With e = e^{−|y|} and l = log1p(e): −log s is l for y >= 0 and l − y below, −log(1 − s) is y + l and l,
    and s and 1 − s are 1/(1 + e) and e/(1 + e) in this order or the other. For t in [0, 1] only numbers of
    one sign are added in L; δ^n is a difference that vanishes only at its root.

    Reduction over the rows: "mean" (the default) divides L and δ^n by N, not by the number of entries;
    "sum" adds the rows; "none" returns one value for each row, and `backward` then takes one delta for
    each row.

    Shapes: y and target (N, n), n >= 1; value () or, unreduced, (N,). With N = 0 sum and mean are 0.
    Dtypes: y and target share a floating dtype, which value and gradient have too; float16 is computed in
    float32.
    Raises: ValueError for a wrong shape, NaN in the target, a p below 0 or as many p's as there are not
    columns, TypeError for a wrong or mixed dtype.
    Differs from torch's BCEWithLogitsLoss: its mean is over the N n entries, because it has no rows, ours
    over the rows as in every loss here; and its (1 − t)y − log s cancels, which leaves a loss of 3.56e-11,
    at y = −24 and t = 0, five digits.
    """

    reduction: Reduction = "mean"
    pos_weight: Any = None

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)
        if isinstance(self.pos_weight, Iterable) and not isinstance(self.pos_weight, str):
            object.__setattr__(self, "pos_weight", tuple(self.pos_weight))
            for j, weight in enumerate(self.pos_weight):
                require_nonnegative(self, "", f"pos_weight[{j}]", weight)
        elif self.pos_weight is not None:
            require_nonnegative(self, "", "pos_weight", self.pos_weight)

    def forward(self, y: Array, target: Array) -> tuple[Any, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        lost, gradient = rowwise(self._rows, y, weights_like(self, target, y))
        return reduce_rows(lost, self.reduction, y.dtype), (gradient, y.dtype)

    def backward(self, cache: Cache, delta: Any = 1.0) -> Array:
        """Return ((1 − t) s − p t (1 − s)) times delta."""
        gradient, dtype = cache
        return scale_rows(self, gradient.copy(), delta, self.reduction, dtype)

    def _rows(self, y: Array, target: Array) -> tuple[Array, Array]:
        """Return (93) of each row, and (94), which shares its exponential."""
        wide, t = widen(y), widen(target)
        positives, negatives = self._weighed(t), 1 - t
        e = np.exp(minus_magnitude(wide))
        minus_log = np.log1p(e)
        # Of two equals a maximum of exact numbers is the first: at 0, as in −|y|, the one of y >= 0.
        lost = positives * (minus_log + np.maximum(0, -wide)) + negatives * (minus_log + np.maximum(wide, 0))
        return lost.sum(axis=1), negatives * logistic(wide, e) - positives * logistic(-wide, e)

    def _weighed(self, t: Array) -> Array:
        """Return p t."""
        if self.pos_weight is None:
            return t
        if not isinstance(self.pos_weight, tuple):
            return np.asanyarray(scalar(self.pos_weight, t) * t)
        p = np.array(self.pos_weight, t.dtype)
        require_shape(self, "forward", "pos_weight", p, t.shape[1:], t, "y")
        return np.asanyarray(p * t)
