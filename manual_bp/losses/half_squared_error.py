"""Half the squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..precision import widen
from ..protocol import Array, Cache
from ..validation import require_rows
from .reduction import Reduction, reduce_rows, require_reduction, scale_rows
from .targets import weights_like


@dataclass(frozen=True)
class HalfSquaredError:
    """L = ½ Σ_j (y_j − y*_j)² for each row (19); δ^n = y − y* (20)–(21): the ½ cancels the 2.

    Reduction over the rows: "mean" (the default) divides L and δ^n by N, not by the number of entries;
    "sum" adds the rows; "none" returns one value for each row, and `backward` then takes one delta for
    each row.

    Shapes: y and target (N, n), n >= 1; value () or, unreduced, (N,). With N = 0 sum and mean are 0.
    Dtypes: y and target share a floating dtype, which value and gradient have too; float16 is computed in
    float32.
    Raises: ValueError for a wrong shape or NaN in the target, TypeError for a wrong or mixed dtype.
    """

    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        require_reduction(self, self.reduction)

    def forward(self, y: Array, target: Array) -> tuple[Any, Cache]:
        """Return L."""
        require_rows(self, "forward", "y", y)
        error = widen(y) - widen(weights_like(self, target, y))
        return reduce_rows(np.vecdot(error, error) / 2, self.reduction, y.dtype), (error, y.dtype)

    def backward(self, cache: Cache, delta: Any = 1.0) -> Array:
        """Return (y − y*) times delta."""
        error, dtype = cache
        return scale_rows(self, error.copy(), delta, self.reduction, dtype)
