"""The largest entry of each window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..protocol import Array, Cache, Params
from ..validation import require_shape
from .pooling import Pooling, windows_of
from .windows import Pair


@dataclass(frozen=True)
class MaxPool2d(Pooling):
    """The largest entry of each window, channel by channel.

    With windows as in (26),

        y[n,c,p,q] = max_{i,j} z[n, c, s p + d i − a, s q + d j − a]                     (34)
        ∂L/∂z[n,c,u,v] = Σ δ[n,c,p,q], over the windows that chose the entry (u, v)      (35)

    Where entries tie there is no derivative. The convention: the first of them is chosen, in the order of the
    kernel's rows, and gets all of δ. The padding is never chosen; of numbers and NaN, NaN is.

    `kernel`, `stride` (None: as the kernel), `padding` and `dilation` are a number for rows and columns alike or a
    pair (rows, columns). `padding` is added on either side; `ceil_mode` adds windows that begin in the image and
    hang over its end.

    Shapes: z (N, C, H, W), N may be 0; y (N, C, rows, columns), as many as (26) counts.
    Dtypes: floating or object, kept.
    Raises: ValueError for a wrong shape, a padding of more than half the kernel, images smaller than the kernel, or
    so small that they lie between a window's taps; TypeError for a wrong dtype.
    Source: Riesenhuber & Poggio 1999.
    Differs from torch's max_pool2d: a window that holds nothing of the image is refused, because it has no largest
    entry; torch gives −∞.
    """

    kernel: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair = 0
    dilation: int | Pair = 1
    ceil_mode: bool = False

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return (34)."""
        count = self._counted(params, z)
        windows, extent = windows_of(self), z.shape[2:]
        inside = windows.padded(np.ones(extent, bool))
        padding = not inside.all()
        taps = zip(windows.views(windows.padded(z), count), windows.views(inside, count), strict=True)
        y, within = next(taps)
        y, chosen = y.copy(order="C"), np.zeros(y.shape, np.min_scalar_type(windows.taps))
        void = ~within  # windows of which all taps so far were in the padding
        nan = (z != z).any()
        for tap, (entries, within) in enumerate(taps, start=1):
            better = entries > y
            if nan:
                better |= entries != entries
            if padding:
                better = (better | void) & within
                void = void & ~within
            np.copyto(y, entries, where=better)
            np.copyto(chosen, tap, where=better)
        return y, (chosen, z)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return (35)."""
        chosen, z = cache
        require_shape(self, "backward", "delta", delta, chosen.shape, z, "y")
        windows, extent, count = windows_of(self), z.shape[2:], chosen.shape[2:]
        padded = np.zeros_like(z, order="C", shape=(*z.shape[:2], *windows.padded_shape(extent, count)))
        for tap, entries in enumerate(windows.views(padded, count)):
            entries += np.where(chosen == tap, delta, 0)
        return windows.cropped(padded, extent), {}
