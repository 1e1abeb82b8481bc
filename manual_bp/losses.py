"""Losses of real targets: half squared error and Huber's loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._precision import scalar, widen
from ._reduction import Reduction, reduce_rows, require_reduction, scale_rows, weights_like
from ._validation import require_positive, require_rows
from .protocol import Array, Cache, Number


@dataclass(frozen=True)
class HalfSquaredError:
    """Half the squared error of each row.

        L = ½ Σ_j (y_j − y*_j)²                         (19)
        δ^n = y − y*                                    (20)–(21)

    Args:
        reduction: "mean" divides the sum over the rows, and δ^n, by N, not by the number of entries; "sum" adds the
            rows; "none" returns one value for each row, and `backward` then takes one delta for each row.

    Shapes: y and target (N, n), n >= 1; value () or, unreduced, (N,). With N = 0 sum and mean are 0.
    Dtypes: y and target share a floating dtype, which value and gradient have too; float16 is computed in float32.

    Raises:
        ValueError: for a wrong shape or NaN in the target.
        TypeError: for a wrong or mixed dtype.

    Source: docs/derivation.md, eq. (19)–(21).
    """

    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)

    def forward(self, y: Array, target: Array) -> tuple[Number, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        error = widen(y) - widen(weights_like(self, target, y))
        return reduce_rows(np.vecdot(error, error) / 2, self.reduction, y.dtype), (error, y.dtype)

    def backward(self, cache: Cache, delta: Number = 1.0) -> Array:
        """Return (y − y*) times delta."""
        error, dtype = cache
        return scale_rows(self, error.copy(), delta, self.reduction, dtype)


@dataclass(frozen=True)
class Huber:
    """Huber's loss of each row: squared near the target, linear far from it.

        L = Σ_j c_j(e_j − c_j/2), e = y − y*, c = e clipped to ±threshold          (95)
        δ^n = c                                                                    (96)

    That is ½e² where |e| <= threshold and threshold · (|e| − ½ threshold) beyond, in one formula without squares that
    overflow. δ^n is continuous: only the second derivative jumps, so no convention is needed.

    Args:
        reduction: "mean" divides the sum over the rows, and δ^n, by N, not by the number of entries; "sum" adds the
            rows; "none" returns one value for each row, and `backward` then takes one delta for each row.
        threshold: the largest error whose square counts, positive.

    Shapes: y and target (N, n), n >= 1; value () or, unreduced, (N,). With N = 0 sum and mean are 0.
    Dtypes: y and target share a floating dtype, which value and gradient have too; float16 is computed in float32.

    Raises:
        ValueError: for a wrong shape, NaN in the target or a threshold that is not positive.
        TypeError: for a wrong or mixed dtype.

    Differs from torch's HuberLoss: torch's mean is over the N n entries; torch calls the threshold delta, which is a
    cotangent here.

    Source: docs/derivation.md, eq. (95)–(96); Huber 1964, "Robust estimation of a location parameter".
    """

    reduction: Reduction = "mean"
    threshold: Number = 1.0

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)
        require_positive(self, "", "threshold", self.threshold)

    def forward(self, y: Array, target: Array) -> tuple[Number, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        error = widen(y) - widen(weights_like(self, target, y))
        threshold = scalar(self.threshold, error)
        clipped = np.minimum(np.maximum(error, -threshold), threshold)
        # c(e − c/2) is both branches in one: no e² is formed, which would overflow where the loss does not.
        rows = np.vecdot(clipped, error - clipped / 2)
        return reduce_rows(rows, self.reduction, y.dtype), (clipped, y.dtype)

    def backward(self, cache: Cache, delta: Number = 1.0) -> Array:
        """Return c times delta."""
        clipped, dtype = cache
        return scale_rows(self, clipped.copy(), delta, self.reduction, dtype)
