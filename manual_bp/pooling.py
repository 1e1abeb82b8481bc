"""Max and average pooling of images."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ._precision import narrow, widen
from ._validation import NO_NAMES, require_flag, require_images, require_names, require_shape
from ._windows import Pair, Windows, pair, require_windows
from .protocol import Array, Cache, Params


class Pooling(ABC):
    """Base of the pooling layers, frozen dataclasses with kernel, stride, padding, ceil_mode, and perhaps dilation."""

    # `__post_init__` makes pairs of the numbers and of None.

    kernel: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    dilation: Any = (1, 1)

    def __post_init__(self) -> None:
        """Make pairs of the fields and check them."""
        set_ = object.__setattr__
        set_(self, "kernel", pair(self, "kernel", self.kernel))
        set_(self, "stride", self.kernel if self.stride is None else pair(self, "stride", self.stride))
        set_(self, "padding", pair(self, "padding", self.padding, least=0))
        set_(self, "dilation", pair(self, "dilation", self.dilation))
        require_flag(self, "ceil_mode", self.ceil_mode)
        if any(2 * a > k for a, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(
                f"{type(self).__name__}: padding: expected at most half of the kernel, {self.kernel}, "
                f"got {self.padding}"
            )

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: the layer has no parameters."""
        return {}

    def _count_windows(self, params: Params, z: Array) -> Pair:
        """Check params and z, and return how many windows the images have."""
        require_images(self, "forward", "z", z)
        require_names(self, "forward", "params", params, NO_NAMES)
        extent = z.shape[2:]
        count = require_windows(self, windows_of(self), extent)
        if not _entries_per_window(windows_of(self), extent).all():
            raise ValueError(
                f"{type(self).__name__}.forward: z: expected images with an entry in every window, of kernel "
                f"{self.kernel}, dilation {self.dilation} and padding {self.padding}, got {extent}"
            )
        return count


@lru_cache
def windows_of(layer: Pooling) -> Windows:
    """Return the windows of a pooling layer."""
    (top, left) = layer.padding
    return Windows(layer.kernel, layer.stride, layer.dilation, ((top, top), (left, left)), layer.ceil_mode)


@lru_cache
def _entries_per_window(windows: Windows, extent: Pair, *, padding: bool = False) -> Array:
    """Return how many taps of each window (rows, columns) lie in the image, or in its padding too; read-only."""
    result = windows.entries_per_window(extent, padding=padding)
    result.flags.writeable = False
    return result


@dataclass(frozen=True)
class MaxPool2d(Pooling):
    """Max pooling: the largest entry of each window, channel by channel.

    With windows as in (26),

        y[n,c,p,q] = max_{i,j} z[n, c, s p + d i − a, s q + d j − a]                     (34)
        ∂L/∂z[n,c,u,v] = Σ δ[n,c,p,q], over the windows that chose the entry (u, v)      (35)

    Where entries tie there is no derivative. The convention: the first of them, in the order of the kernel's rows, is
    chosen and gets all of δ. The padding is never chosen; NaN is chosen before every number.

    Args:
        kernel, padding, dilation: a number for rows and columns alike, or a pair (rows, columns); padding is added on
            either side.
        stride: likewise; None for the kernel.
        ceil_mode: adds windows that begin in the image and extend beyond its padding.

    Shapes: z (N, C, H, W), N may be 0; y (N, C, rows, columns), as many as (26) counts.
    Dtypes: floating or object, kept.

    Raises:
        ValueError: for a wrong shape, a padding of more than half the kernel, images smaller than the kernel, or so
            small that they lie between a window's taps.
        TypeError: for a wrong dtype.

    Differs from torch's max_pool2d: a window that contains no entry of the image is refused, because it has no largest
    entry; torch gives −∞.

    Source: docs/derivation.md, eq. (26), (34)–(35); Riesenhuber & Poggio 1999.
    """

    kernel: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair = 0
    dilation: int | Pair = 1
    ceil_mode: bool = False

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return (34)."""
        count = self._count_windows(params, z)
        windows, extent = windows_of(self), z.shape[2:]
        inside = windows.pad(np.ones(extent, bool))
        padding = not inside.all()
        taps = zip(windows.views(windows.pad(z), count), windows.views(inside, count), strict=True)
        y, within = next(taps)
        y, chosen = y.copy(order="C"), np.zeros(y.shape, np.min_scalar_type(windows.taps))
        empty = ~within  # windows of which all taps so far were in the padding
        nan = (z != z).any()  # once; only if there is one, every tap is compared with itself too
        for tap, (entries, within) in enumerate(taps, start=1):
            better = entries > y
            if nan:
                better |= entries != entries
            if padding:
                better = (better | empty) & within
                empty = empty & ~within
            np.copyto(y, entries, where=better)
            np.copyto(chosen, tap, where=better)
        return y, (chosen, z)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return (35)."""
        chosen, z = cache
        require_shape(self, "backward", "delta", delta, chosen.shape, z, "y")
        windows, extent, count = windows_of(self), z.shape[2:], chosen.shape[2:]
        wide = widen(delta)
        padded = np.zeros_like(wide, order="C", shape=(*z.shape[:2], *windows.padded_shape(extent, count)))
        for tap, entries in enumerate(windows.views(padded, count)):
            entries += np.where(chosen == tap, wide, 0)
        return narrow(windows.crop(padded, extent), z.dtype), {}


@dataclass(frozen=True)
class AvgPool2d(Pooling):
    """Average pooling: the mean of each window, channel by channel.

    With windows as in (26), z = 0 in the padding, and m[p,q] the number of entries that count,

        y[n,c,p,q] = (1/m[p,q]) Σ_{i,j} z[n, c, s p + i − a, s q + j − a]                (36)
        ∂L/∂z[n,c,u,v] = Σ δ[n,c,p,q] / m[p,q], over the windows that contain (u, v)     (37)

    Args:
        kernel, padding: a number for rows and columns alike, or a pair (rows, columns); padding is added on either
            side.
        stride: likewise; None for the kernel.
        ceil_mode: adds windows that begin in the image and extend beyond its padding; what lies beyond never counts.
        count_include_pad: whether the entries of the padding count.

    Shapes: z (N, C, H, W), N may be 0; y (N, C, rows, columns), as many as (26) counts.
    Dtypes: floating or object, kept; float16 is computed in float32.

    Raises:
        ValueError: for a wrong shape, a padding of more than half the kernel or images smaller than the kernel.
        TypeError: for a wrong dtype.

    Source: docs/derivation.md, eq. (26), (36)–(37); LeCun et al. 1989.
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
        count = self._count_windows(params, z)
        taps = windows_of(self).views(windows_of(self).pad(widen(z)), count)
        total = next(taps).copy(order="C")
        for entries in taps:
            total += entries
        total /= self._divisors(total, z.shape[2:])  # one division after the sum rounds once
        return narrow(total, z.dtype), z

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return (37)."""
        windows, extent = windows_of(self), cache.shape[2:]
        count = windows.count(extent)
        require_shape(self, "backward", "delta", delta, (*cache.shape[:2], *count), cache, "y")
        wide = widen(delta)
        share = wide / self._divisors(wide, extent)
        padded = np.zeros_like(share, order="C", shape=(*share.shape[:2], *windows.padded_shape(extent, count)))
        for entries in windows.views(padded, count):
            entries += share
        return narrow(windows.crop(padded, extent), cache.dtype), {}

    def _divisors(self, like: Array, extent: Pair) -> Array:
        """Return m in the dtype of `like`."""
        m: Array = _entries_per_window(windows_of(self), extent, padding=self.count_include_pad).astype(like.dtype)
        return m
