"""Sliding windows over images: where they lie, and what they hold, one tap of the kernel at a time.

All windows' entries at one tap (i, j) of the kernel are one strided view of the padded image. So whatever slides a
kernel, convolution and pooling alike, loops over the few taps, never over pixels; and what is added to that view
goes back to where it came from, which is the adjoint of looking through the windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

from ..protocol import Array

# Rows and columns, as in the kernel's (height, width) or an image's.
Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Window p holds, at tap i, the entry s p + d i − a of the image, along rows and columns alike (26).

    s is the stride, d the dilation, a the padding before the image. Of an axis of n entries, padded by a before
    and b after, there are ⌊(n + a + b − d(k − 1) − 1)/s⌋ + 1 windows; with `ceil_mode` ⌈…⌉ in place of ⌊…⌋,
    without a last one that would begin after the image.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: tuple[Pair, Pair]
    ceil_mode: bool = False

    @property
    def taps(self) -> int:
        """The number of entries in a window."""
        return prod(self.kernel)

    @property
    def span(self) -> Pair:
        """The number of entries from a window's first to its last."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1) + 1, dw * (kw - 1) + 1

    def count(self, extent: Pair) -> Pair:
        """Return how many windows an image of this extent has; less than 1 where the kernel does not fit in."""
        return self._along(0, extent[0]), self._along(1, extent[1])

    def _along(self, axis: int, n: int) -> int:
        (before, after), s = self.padding[axis], self.stride[axis]
        room = n + before + after - self.span[axis]
        windows = (-(-room // s) if self.ceil_mode else room // s) + 1
        return windows - 1 if self.ceil_mode and (windows - 1) * s >= n + before else windows

    def held(self, extent: Pair, *, padding: bool = False) -> Array:
        """Return of how many taps each window holds an entry of the image, or of its padding too: (rows, columns)."""
        along = []
        for n, windows, k, s, d, (before, after) in zip(
            extent, self.count(extent), self.kernel, self.stride, self.dilation, self.padding, strict=True
        ):
            places = s * np.arange(windows)[:, None] + d * np.arange(k)
            first, last = (0, n + before + after) if padding else (before, n + before)
            along.append(((places >= first) & (places < last)).sum(axis=1))
        held: Array = along[0][:, None] * along[1]
        return held

    def padded_shape(self, extent: Pair, count: Pair) -> Pair:
        """Return the extent of a padded image: it holds every window, and the whole image where they leave some out."""
        (h, w), (rows, columns), (sh, sw), (bh, bw) = extent, count, self.stride, self.span
        (top, _), (left, _) = self.padding
        return max(sh * (rows - 1) + bh, top + h), max(sw * (columns - 1) + bw, left + w)

    def padded(self, images: Array, fill: Any = 0) -> Array:
        """Return the images (…, H, W) within their padding, in new memory unless there is none."""
        *outer, h, w = images.shape
        shape = self.padded_shape((h, w), self.count((h, w)))
        if shape == (h, w):
            return images
        result = np.full_like(images, fill, order="C", shape=(*outer, *shape))
        self.inside(result, (h, w))[...] = images
        return result

    def inside(self, padded: Array, extent: Pair) -> Array:
        """Return the view of the image within its padding."""
        (h, w), ((top, _), (left, _)) = extent, self.padding
        return padded[..., top : top + h, left : left + w]

    def cropped(self, padded: Array, extent: Pair) -> Array:
        """Return the image without its padding, in new memory unless there is none."""
        return padded if padded.shape[-2:] == extent else self.inside(padded, extent).copy(order="C")

    def views(self, padded: Array, count: Pair) -> Iterator[Array]:
        """Yield, tap by tap in the order of the kernel's rows, the view (…, rows, columns) of what all windows hold."""
        (kh, kw), (sh, sw), (dh, dw), (rows, columns) = self.kernel, self.stride, self.dilation, count
        for top in range(0, kh * dh, dh):
            for left in range(0, kw * dw, dw):
                yield padded[..., top : top + sh * (rows - 1) + 1 : sh, left : left + sw * (columns - 1) + 1 : sw]


def pair(owner: object, name: str, value: Any, least: int = 1) -> Pair:
    """Return a number for rows and columns alike, or one for each, as a pair; refuse what is less than `least`."""
    both = value if isinstance(value, tuple) else (value, value)
    at, kind = f"{type(owner).__name__}: {name}", "a positive integer" if least else "an integer of 0 or more"
    if len(both) != 2 or any(isinstance(n, bool) or not isinstance(n, Integral) for n in both):
        raise TypeError(f"{at}: expected {kind}, or a pair of them for rows and columns, got {value!r}")
    if min(both) < least:
        raise ValueError(f"{at}: expected {kind}, or a pair of them for rows and columns, got {value!r}")
    return int(both[0]), int(both[1])


def require_windows(owner: object, windows: Windows, extent: Pair) -> Pair:
    """Return how many windows images of this extent have; refuse images that the kernel does not fit in."""
    count = windows.count(extent)
    if min(count) < 1:
        room = tuple(n + sum(around) for n, around in zip(extent, windows.padding, strict=True))
        raise ValueError(
            f"{type(owner).__name__}.forward: z: the kernel spans {windows.span}, more than images of {extent}, "
            f"padded to {room}"
        )
    return count
