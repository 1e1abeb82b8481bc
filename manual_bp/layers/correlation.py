"""The one core of convolution and transposed convolution: a form linear in each of weight, image and map.

    T(W, x, y) = Σ W[o, c, i, j] · x[n, c, s p + d i − a, s q + d j − a'] · y[n, o, p, q]

over everything that is named: images n, channels c of x and o of y, taps (i, j), windows (p, q); x is 0 outside.
Its three partial derivatives are everything: ∂T/∂y slides the kernel over images (`maps`), ∂T/∂x spreads maps back
to where the windows lay (`images`), its adjoint, and ∂T/∂W is the gradient of the weight in both (`weight`). In steps
of 1 to spread is to slide the flipped kernel over the maps.

For the images of one chunk, what the windows hold is written out as columns (C·taps, P), P windows: then each of the
three is one matrix product for each image. A chunk is one image, or several small ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..protocol import Array
from .windows import Pair, Windows

_CHUNK = 1 << 19  # bytes of columns: what a processor keeps near at hand


@dataclass(frozen=True)
class Correlation:
    """The form T with its windows; in `groups`, so many channels of x and of y see one another alone."""

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
        # Columns of y are fewer passes than spreading, but hold O numbers for each tap and place, not C.
        if y.shape[1] <= 2 * channels and (flipped := self._flipped(extent, count)):
            parts = W.reshape(self.groups, -1, *W.shape[1:]).swapaxes(1, 2)[..., ::-1, ::-1]
            return flipped.maps(parts.reshape(channels, -1, *W.shape[2:]), y, extent)
        x = np.empty_like(y, order="C", shape=(len(y), channels, *extent))
        matrix, maps = self._matrix(W).swapaxes(1, 2), self._grouped(y)
        shape = self.windows.padded_shape(extent, count)
        product = np.matmul if matrix.shape[2] > 1 else np.multiply  # of one channel each: outer, and thrice as fast
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
        """Return what slides the flipped kernel over maps, so that its maps are images; in steps of 1 there is one."""
        w = self.windows
        around = []
        for n, windows, span, (first, _) in zip(extent, count, w.span, w.padding, strict=True):
            before = span - 1 - first
            around.append((before, n + span - 1 - windows - before))
        if w.stride != (1, 1) or min(map(min, around)) < 0:
            return None
        return Correlation(Windows(w.kernel, w.stride, w.dilation, (around[0], around[1])), self.groups)

    def _columns(self, x: Array, count: Pair) -> Iterator[tuple[slice, Array]]:
        """Yield the images chunk by chunk, with what their windows hold, (B, groups, C/groups·taps, P)."""
        channels, extent = x.shape[1], x.shape[2:]
        padded = buffer = None
        for rows in self._chunks(x, channels, count):
            size = rows.stop - rows.start
            if padded is None or buffer is None:
                padded = np.zeros_like(x, order="C", shape=(size, channels, *self.windows.padded_shape(extent, count)))
                buffer = np.empty_like(x, order="C", shape=(size, channels, self.windows.taps, *count))
            self.windows.inside(padded, extent)[:size] = x[rows]
            for tap, view in enumerate(self.windows.views(padded[:size], count)):
                buffer[:size, :, tap] = view
            yield rows, buffer[:size].reshape(size, self.groups, -1, count[0] * count[1])

    def _chunks(self, like: Array, channels: int, count: Pair) -> Iterator[slice]:
        """Yield slices of images, the largest first, so that the columns of each stay within a chunk."""
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
