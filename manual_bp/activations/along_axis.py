"""What activations of whole rows share: the axis along which the rows lie, and the checks of the contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..precision import narrow, widen
from ..protocol import Array, Cache, Params
from ..rows import array_of, rows_along
from ..validation import require_axis, require_integer, require_names, require_row_axis, require_shape

_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AlongAxis(ABC):
    """A function of the entries along one axis. A subclass states it for rows (N, n), at least one entry in each.

    Shapes: z, y, delta of one shape, with 1 or more entries along the axis, and any number elsewhere.
    Dtypes: floating or object, kept; float16 is computed in float32.
    Raises: ValueError for a shape without such an axis or a delta of another shape, TypeError for a dtype
    that is not floating or an axis that is no integer.
    """

    axis: int = -1

    preserves_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integer(self, "", "axis", self.axis)

    @abstractmethod
    def of_rows(self, z: Array) -> tuple[Array, Any]:
        """Return y of rows, and what `back_to_rows` and `jacobian_of_rows` need."""

    @abstractmethod
    def back_to_rows(self, kept: Any, delta: Array) -> Array:
        """Return ∂L/∂z of rows."""

    @abstractmethod
    def jacobian_of_rows(self, y: Array, kept: Any) -> Array:
        """Return ∂y_i/∂z_j of rows, (N, n, n)."""

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: there is nothing to learn."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return y."""
        require_axis(self, "forward", "z", z, self.axis)
        require_names(self, "forward", "params", params, _NO_NAMES)
        rows, kept = self.of_rows(widen(rows_along(z, self.axis)))
        y = array_of(narrow(rows, z.dtype), z.shape, self.axis)
        return y, (y, kept)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return ∂L/∂z."""
        y, kept = cache
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        dz = self.back_to_rows(kept, widen(rows_along(delta, self.axis)))
        return array_of(narrow(dz, y.dtype), y.shape, self.axis), {}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return ∂y_i/∂z_j, shape (N, n, n), of the columns of rows."""
        require_row_axis(self, "jacobian", "z", z, self.axis)
        require_names(self, "jacobian", "params", params, _NO_NAMES)
        result: Array = narrow(self.jacobian_of_rows(*self.of_rows(widen(z))), z.dtype)
        return result
