"""Sliding windows over images, and the trilinear form behind convolution.

The entries of all windows at one tap (i, j) of the kernel are one strided view of the padded image. So convolution and
pooling loop over the few taps, never over pixels. What is added to that view is added to the image, which is the
adjoint of reading through the windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import TypeAlias

import numpy as np

from .protocol import Array, Number

# Rows and columns, as a kernel's or an image's (height, width).
Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Window p contains, at tap i, the entry s p + d i − a of the image, along rows and columns alike (26).

    s is the stride, d the dilation, a the padding before the image. Of an axis of n entries, padded by a before
    and b after, there are ⌊(n + a + b − d(k − 1) − 1)/s⌋ + 1 windows; with `ceil_mode` ⌈…⌉ in place of ⌊…⌋,
    without a last one that would begin after the image.

    Source: docs/derivation.md, eq. (26).
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
        """Return how many windows an image of this extent has; less than 1 if the kernel is larger."""
        return self._along(0, extent[0]), self._along(1, extent[1])

    def _along(self, axis: int, n: int) -> int:
        (before, after), s = self.padding[axis], self.stride[axis]
        steps = n + before + after - self.span[axis]
        windows = (-(-steps // s) if self.ceil_mode else steps // s) + 1
        return windows - 1 if self.ceil_mode and (windows - 1) * s >= n + before else windows

    def entries_per_window(self, extent: Pair, *, padding: bool = False) -> Array:
        """Return how many taps of each window lie in the image, or in its padding too: (rows, columns)."""
        along = []
        for n, windows, k, s, d, (before, after) in zip(
            extent, self.count(extent), self.kernel, self.stride, self.dilation, self.padding, strict=True
        ):
            entries = s * np.arange(windows)[:, None] + d * np.arange(k)
            first, last = (0, n + before + after) if padding else (before, n + before)
            along.append(((entries >= first) & (entries < last)).sum(axis=1))
        taps: Array = along[0][:, None] * along[1]
        return taps

    def padded_shape(self, extent: Pair, count: Pair) -> Pair:
        """Return the extent of a padded image, which contains every window and the whole image."""
        (h, w), (rows, columns), (sh, sw), (bh, bw) = extent, count, self.stride, self.span
        (top, _), (left, _) = self.padding
        return max(sh * (rows - 1) + bh, top + h), max(sw * (columns - 1) + bw, left + w)

    def pad(self, images: Array, fill: Number = 0) -> Array:
        """Return the images (…, H, W) with their padding, a new array unless there is none."""
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

    def crop(self, padded: Array, extent: Pair) -> Array:
        """Return the image without its padding, a new array unless there is none."""
        return padded if padded.shape[-2:] == extent else self.inside(padded, extent).copy(order="C")

    def views(self, padded: Array, count: Pair) -> Iterator[Array]:
        """Yield for each tap, in order of the kernel's rows, the view (…, rows, columns) of all windows' entries."""
        (kh, kw), (sh, sw), (dh, dw), (rows, columns) = self.kernel, self.stride, self.dilation, count
        for top in range(0, kh * dh, dh):
            for left in range(0, kw * dw, dw):
                yield padded[..., top : top + sh * (rows - 1) + 1 : sh, left : left + sw * (columns - 1) + 1 : sw]


def pair(owner: object, name: str, value: int | Pair, least: int = 1) -> Pair:
    """Return a number for rows and columns alike, or one for each, as a pair; refuse numbers below `least`."""
    both = value if isinstance(value, tuple) else (value, value)
    at, kind = f"{type(owner).__name__}: {name}", "a positive integer" if least else "an integer of 0 or more"
    if len(both) != 2 or any(isinstance(n, bool) or not isinstance(n, Integral) for n in both):
        raise TypeError(f"{at}: expected {kind}, or a pair of them for rows and columns, got {value!r}")
    if min(both) < least:
        raise ValueError(f"{at}: expected {kind}, or a pair of them for rows and columns, got {value!r}")
    return int(both[0]), int(both[1])


def require_windows(owner: object, windows: Windows, extent: Pair) -> Pair:
    """Return how many windows images of this extent have; refuse images smaller than the kernel."""
    count = windows.count(extent)
    if min(count) < 1:
        padded = tuple(n + sum(around) for n, around in zip(extent, windows.padding, strict=True))
        raise ValueError(
            f"{type(owner).__name__}.forward: z: expected images of at least {windows.span}, the kernel's span, "
            f"got {extent}, padded to {padded}"
        )
    return count


# Bytes of columns in a chunk: they fit in a second-level cache, so the product reads them from there. Larger chunks are
# slower, smaller ones make more calls.
_CHUNK = 1 << 19


@dataclass(frozen=True)
class Correlation:
    """The common core of convolution and transposed convolution: a form linear in each of weight, image and map.

        T(W, x, y) = Σ W[o, c, i, j] · x[n, c, s p + d i − a, s q + d j − a'] · y[n, o, p, q]

    summed over images n, channels c of x and o of y, taps (i, j), windows (p, q); x is 0 outside. Both layers are its
    partial derivatives: ∂T/∂y slides the kernel over images (`maps`), its adjoint ∂T/∂x adds maps to the entries that
    the windows read (`images`), and ∂T/∂W is the gradient of the weight in both (`weight`). With stride 1, `images` is
    `maps` with the flipped kernel.

    For a chunk, one image or several small ones, the windows' entries are written out as columns (C·taps, P), P
    windows: then each of the three is one matrix product for each image. With `groups`, the channels of a group of y
    read those of the same group of x alone.
    """

    windows: Windows
    groups: int

    def maps(self, W: Array, x: Array, count: Pair) -> Array:
        """Return ∂T/∂y, shape (N, O, *count), of a weight (O, C/groups, *kernel) and images (N, C, H, W)."""
        y = np.empty_like(x, order="C", shape=(len(x), self.groups, len(W) // self.groups, count[0] * count[1]))
        matrix = self._matrix(W)
        for rows, columns in self._columns(x, count):
            np.matmul(matrix, columns, out=y[rows])
        return y.reshape(len(x), len(W), *count)

    def images(self, W: Array, y: Array, extent: Pair) -> Array:
        """Return ∂T/∂x, shape (N, C, *extent), of a weight and maps (N, O, rows, columns)."""
        count, channels = y.shape[2:], W.shape[1] * self.groups
        # Columns of y take fewer passes, but they have O numbers for each tap and pixel instead of C.
        if y.shape[1] <= 2 * channels and (flipped := self._flipped(extent, count)):
            parts = W.reshape(self.groups, -1, *W.shape[1:]).swapaxes(1, 2)[..., ::-1, ::-1]
            return flipped.maps(parts.reshape(channels, -1, *W.shape[2:]), y, extent)
        x = np.empty_like(y, order="C", shape=(len(y), channels, *extent))
        matrix, maps = self._matrix(W).swapaxes(1, 2), self._grouped(y)
        shape = self.windows.padded_shape(extent, count)
        # With one channel for each group the product is an outer one, which multiply computes three times as fast.
        product = np.matmul if matrix.shape[2] > 1 else np.multiply
        for rows in self._chunks(y, channels, count):
            spread = product(matrix, maps[rows]).reshape(-1, channels, self.windows.taps, *count)
            padded = np.zeros_like(y, order="C", shape=(len(spread), channels, *shape))
            for tap, view in enumerate(self.windows.views(padded, count)):
                view += spread[:, :, tap]
            x[rows] = self.windows.inside(padded, extent)
        return x

    def weight(self, x: Array, y: Array, kernel: tuple[int, ...]) -> Array:
        """Return ∂T/∂W, of the shape `kernel`, of images and maps: added over the images."""
        total = np.zeros_like(x, order="C", shape=(self.groups, kernel[0] // self.groups, np.prod(kernel[1:])))
        maps = self._grouped(y)
        for rows, columns in self._columns(x, y.shape[2:]):
            each = np.matmul(maps[rows], columns.swapaxes(2, 3))
            total += each[0] if len(each) == 1 else each.sum(axis=0)
        return total.reshape(kernel)

    def _flipped(self, extent: Pair, count: Pair) -> Correlation | None:
        """Return the form whose `maps` of the flipped kernel are the `images` of this one; None unless stride is 1."""
        w = self.windows
        around = []
        for n, windows, span, (first, _) in zip(extent, count, w.span, w.padding, strict=True):
            before = span - 1 - first
            around.append((before, n + span - 1 - windows - before))
        if w.stride != (1, 1) or min(map(min, around)) < 0:
            return None
        return Correlation(Windows(w.kernel, w.stride, w.dilation, (around[0], around[1])), self.groups)

    def _columns(self, x: Array, count: Pair) -> Iterator[tuple[slice, Array]]:
        """Yield the slices of the chunks, with their windows' entries (B, groups, C/groups·taps, P)."""
        channels, extent = x.shape[1], x.shape[2:]
        padded = buffer = None
        for rows in self._chunks(x, channels, count):
            size = rows.stop - rows.start
            if padded is None or buffer is None:
                padded = np.zeros_like(x, order="C", shape=(size, channels, *self.windows.padded_shape(extent, count)))
                buffer = np.empty_like(x, order="C", shape=(size, channels, self.windows.taps, *count))
            # The buffers serve all chunks; the padding around the image stays 0.
            self.windows.inside(padded, extent)[:size] = x[rows]
            for tap, view in enumerate(self.windows.views(padded[:size], count)):
                buffer[:size, :, tap] = view
            yield rows, buffer[:size].reshape(size, self.groups, -1, count[0] * count[1])

    def _chunks(self, like: Array, channels: int, count: Pair) -> Iterator[slice]:
        """Yield slices of images, the largest first, such that the columns of each fit in a chunk."""
        image = channels * self.windows.taps * count[0] * count[1] * like.itemsize
        step = max(1, _CHUNK // image)
        return (slice(start, min(start + step, len(like))) for start in range(0, len(like), step))

    def _matrix(self, W: Array) -> Array:
        """Return the weight (O, C/groups, *kernel) as matrices (groups, O/groups, C/groups·taps)."""
        return np.ascontiguousarray(W).reshape(self.groups, len(W) // self.groups, -1)

    def _grouped(self, y: Array) -> Array:
        """Return maps (N, O, rows, columns) as matrices (N, groups, O/groups, rows·columns)."""
        n, o, rows, columns = y.shape
        return np.ascontiguousarray(y).reshape(n, self.groups, o // self.groups, rows * columns)
