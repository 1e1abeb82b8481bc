"""Huber's loss: squared near the target, linear far from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..precision import scalar, widen
from ..protocol import Array, Cache
from ..validation import require_positive, require_rows
from .reduction import Reduction, reduce_rows, require_reduction, scale_rows
from .targets import weights_like


@dataclass(frozen=True)
class Huber:
    """L = Σ_j c_j(e_j − c_j/2), e = y − y*, c = e clipped to ±threshold, for each row (95); δ^n = c (96).

    That is ½e² where |e| <= threshold and threshold · (|e| − ½ threshold) beyond, in one formula without
    squares that overflow. δ^n is continuous: only the second derivative jumps, so there is no convention.

    Reduction over the rows: "mean" (the default) divides L and δ^n by N, not by the number of entries;
    "sum" adds the rows; "none" returns one value for each row, and `backward` then takes one delta for
    each row.

    Shapes: y and target (N, n), n >= 1; value () or, unreduced, (N,). With N = 0 sum and mean are 0.
    Dtypes: y and target share a floating dtype, which value and gradient have too; float16 is computed in
    float32.
    Raises: ValueError for a wrong shape, NaN in the target or a threshold that is not above 0, TypeError
    for a wrong or mixed dtype.
    Differs from torch's HuberLoss: its mean is over the N n entries, because it has no rows; and its
    threshold is called delta, which here is a cotangent.
    Source: Huber 1964, "Robust estimation of a location parameter".
    """

    reduction: Reduction = "mean"
    threshold: Any = 1.0

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)
        require_positive(self, "", "threshold", self.threshold)

    def forward(self, y: Array, target: Array) -> tuple[Any, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        error = widen(y) - widen(weights_like(self, target, y))
        threshold = scalar(self.threshold, error)
        clipped = np.minimum(np.maximum(error, -threshold), threshold)
        rows = np.vecdot(clipped, error - clipped / 2)
        return reduce_rows(rows, self.reduction, y.dtype), (clipped, y.dtype)

    def backward(self, cache: Cache, delta: Any = 1.0) -> Array:
        """Return c times delta."""
        clipped, dtype = cache
        return scale_rows(self, clipped.copy(), delta, self.reduction, dtype)
