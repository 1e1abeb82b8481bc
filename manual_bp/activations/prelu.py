"""The rectified linear unit that learns its slope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..precision import narrow, widen, zero
from ..protocol import Array, Cache, Params
from ..validation import (
    real_dtype,
    require_channels,
    require_count,
    require_names,
    require_ranked,
    require_real,
    require_rows,
    require_shape,
)
from .leaky_relu import rectified_slope

_NAMES = frozenset({"slope"})


@dataclass(frozen=True)
class PReLU:
    """y = z where z > 0, az elsewhere, a learned (80): one slope, or one for each channel on axis 1.

    dz = δ where z > 0, aδ elsewhere, at 0 itself too; da = Σ δ min(z, 0) over all that shares a slope (81).
    `kink_convention` maps the place of the kink to the derivative declared there, the slope, as it
    initially is.

    Shapes: z, y, delta of one shape of rank 1 or more, with several channels (N, channels, …); slope
    (channels,).
    Dtypes: z and slope share a floating dtype or object, kept; float16 is summed in float32.
    Raises: ValueError for a wrong shape or parameter name, for channels < 1 and for an initial slope that
    is not finite, TypeError for a wrong or mixed dtype.
    Source: He et al. 2015, "Delving Deep into Rectifiers", eq. 1 and 8.
    """

    preserves_shape: ClassVar[bool] = True

    channels: int = 1
    initial: Any = 0.25

    def __post_init__(self) -> None:
        require_count(self, "", "channels", self.channels)
        require_real(self, "", "initial", self.initial)

    @property
    def kink_convention(self) -> Mapping[float, float]:
        """The derivative declared at 0, with the slope that `init` gives."""
        return {0.0: self.initial}

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return the initial slope for each channel; nothing is drawn."""
        return {"slope": np.full(self.channels, self.initial, real_dtype(self, dtype))}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return z where z > 0, az elsewhere."""
        slope = self._checked("forward", params, z)
        return z * rectified_slope(z, slope), (z, slope)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return dz and da (81)."""
        z, slope = cache
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        dz = delta * rectified_slope(z, slope)
        products = widen(delta) * widen(np.minimum(zero(z.dtype), z))
        shared = tuple(axis for axis in range(z.ndim) if self.channels == 1 or axis != 1)
        dslope = products.sum(axis=shared, keepdims=True).reshape(self.channels)
        return dz, {"slope": narrow(dslope, z.dtype)}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return diag σ'(z) for each row of z, shape (N, n, n)."""
        require_rows(self, "jacobian", "z", z)
        slope = self._checked("jacobian", params, z)
        rows, n = z.shape
        result = np.zeros((rows, n, n), z.dtype)
        result[:, range(n), range(n)] = rectified_slope(z, slope)
        return result

    def _checked(self, method: str, params: Params, z: Array) -> Array:
        """Return the slope in a shape that broadcasts against z."""
        if self.channels == 1:
            require_ranked(self, method, "z", z)
        else:
            require_channels(self, method, "z", z, self.channels)
        require_names(self, method, "params", params, _NAMES)
        slope = params["slope"]
        require_shape(self, method, "params['slope']", slope, (self.channels,), z, "z")
        return slope if self.channels == 1 else slope.reshape(-1, *(1,) * (z.ndim - 2))
