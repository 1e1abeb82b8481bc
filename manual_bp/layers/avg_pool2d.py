"""The mean of each window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..precision import narrow, widen
from ..protocol import Array, Cache, Params
from ..validation import require_flag, require_shape
from .pooling import Pooling, held, windows_of
from .windows import Pair


@dataclass(frozen=True)
class AvgPool2d(Pooling):
    """The mean of each window, channel by channel.

    With windows as in (26), z 0 in the padding, and m[p,q] the number of entries that count,

        y[n,c,p,q] = (1/m[p,q]) Σ_{i,j} z[n, c, s p + i − a, s q + j − a]                (36)
        ∂L/∂z[n,c,u,v] = Σ δ[n,c,p,q] / m[p,q], over the windows that hold (u, v)        (37)

    The entries of the padding count, unless `count_include_pad` is False. What lies beyond the padding, where
    `ceil_mode` lets a window hang over, never does.

    `kernel`, `stride` (None: as the kernel) and `padding` are a number for rows and columns alike or a pair (rows,
    columns). `padding` is added on either side; `ceil_mode` adds windows that begin in the image and hang over its
    end.

    Shapes: z (N, C, H, W), N may be 0; y (N, C, rows, columns), as many as (26) counts.
    Dtypes: floating or object, kept; float16 is computed in float32.
    Raises: ValueError for a wrong shape, a padding of more than half the kernel or images smaller than the kernel;
    TypeError for a wrong dtype.
    Source: LeCun et al. 1989.
    """

    kernel: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_flag(self, "count_include_pad", self.count_include_pad)

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return (36)."""
        count = self._counted(params, z)
        taps = windows_of(self).views(windows_of(self).padded(widen(z)), count)
        total = next(taps).copy(order="C")
        for entries in taps:
            total += entries
        total /= self._counting(total, z.shape[2:])
        return narrow(total, z.dtype), z

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return (37)."""
        windows, extent = windows_of(self), cache.shape[2:]
        count = windows.count(extent)
        require_shape(self, "backward", "delta", delta, (*cache.shape[:2], *count), cache, "y")
        wide = widen(delta)
        share = wide / self._counting(wide, extent)
        padded = np.zeros_like(share, order="C", shape=(*share.shape[:2], *windows.padded_shape(extent, count)))
        for entries in windows.views(padded, count):
            entries += share
        return narrow(windows.cropped(padded, extent), cache.dtype), {}

    def _counting(self, like: Array, extent: Pair) -> Array:
        """Return m, as numbers of the array's type."""
        m: Array = held(windows_of(self), extent, padding=self.count_include_pad).astype(like.dtype)
        return m
