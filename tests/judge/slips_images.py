"""Slips in what slides windows over images, and in Flatten."""

from dataclasses import replace
from functools import partial

import numpy as np
from slips import slip

import manual_bp as m
from manual_bp.layers import conv2d, conv_transpose2d
from manual_bp.layers.pooling import windows_of
from oracles.lifts.manual import manual_layer
from oracles.strategies import constant, real

image = partial(slip, manual_layer)
conv = partial(image, required={"n_in": 2, "n_out": 4, "kernel": (2, 3)})
transposed = partial(image, required={"n_in": 2, "n_out": 2, "kernel": (2, 3)})
pool = partial(image, required={"kernel": (2, 2)})
SEEN = {"z": real(2, 2, 4, 5), "W": real(4, 2, 2, 3), "b": real(4)}
IN_GROUPS = SEEN | {"W": real(4, 1, 2, 3)}
LAID = {"z": real(2, 2, 3, 4), "W": real(2, 2, 2, 3), "b": real(2)}
PLAIN = {"z": real(2, 1, 5, 6)}
TIES = {"z": constant(np.array([[[[1.0, 2, 0], [2, 2, 1], [0, 1, 3]]]]))}


@conv("reversed", SEEN)
class KernelTurnedRound(m.Conv2d):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        return dz, grads | {"W": grads["W"][..., ::-1, ::-1].copy()}


@conv("constant_factor", SEEN)
class BiasGradientAveragedOverPlaces(m.Conv2d):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        places = delta.shape[2] * delta.shape[3]
        return dz, grads | ({"b": grads["b"] / delta.dtype.type(places)} if self.bias else {})


@conv("", SEEN, silent=True, stride=(1, 2))
class StridesSwappedGoingBack(m.Conv2d):
    def backward(self, cache, delta):
        (z, W), (dz, grads) = cache, super().backward(cache, delta)
        core = conv2d._core(self)
        swapped = replace(core, windows=replace(core.windows, stride=self.stride[::-1]))
        return dz, grads | {"W": swapped.weight(z, delta, W.shape)}


@conv("wrong_only_in_places", SEEN, silent=True, dilation=(2, 1))
class DilationForgottenGoingBack(m.Conv2d):
    def backward(self, cache, delta):
        (z, W), (_, grads) = cache, super().backward(cache, delta)
        core = conv2d._core(self)
        dense = replace(core, windows=replace(core.windows, dilation=(1, 1)))
        return dense.images(W, delta, z.shape[2:]), grads


@conv("wrong_only_in_places", IN_GROUPS, silent=SEEN, groups=2)
class FirstGroupSpeaksForAll(m.Conv2d):
    def backward(self, cache, delta):
        z, W = cache
        first = np.concatenate([W[: len(W) // self.groups]] * self.groups)
        return super().backward((z, first), delta)[0], super().backward(cache, delta)[1]


@conv("", SEEN, silent=True, padding="same", check="primal_agrees")
class SamePadsMoreBefore(m.Conv2d):
    def forward(self, params, z):
        y, cache = super().forward(params, z)
        if self.padding == "same":
            turned = {name: a[..., ::-1, ::-1].copy() if name == "W" else a for name, a in params.items()}
            y = super().forward(turned, z[..., ::-1, ::-1])[0][..., ::-1, ::-1].copy()
        return y, cache


@transposed("", LAID, silent=True, stride=2, output_padding=1)
class OutputPaddingHasNoBias(m.ConvTranspose2d):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        rows, columns = (n - more for n, more in zip(delta.shape[2:], self.output_padding, strict=True))
        return dz, grads | ({"b": delta[..., :rows, :columns].sum((0, 2, 3))} if self.bias else {})


@transposed("", LAID, silent=True, padding=(0, 1))
class PaddingForgottenGoingBack(m.ConvTranspose2d):
    def backward(self, cache, delta):
        (z, W), (_, grads) = cache, super().backward(cache, delta)
        core = conv_transpose2d._core(self)
        uncut = replace(core, windows=replace(core.windows, padding=((0, 0), (0, 0))))
        return uncut.maps(W, np.pad(delta, ((0, 0), (0, 0), *((0, 2 * a) for a in self.padding))), z.shape[2:]), grads


@transposed("", LAID)
class ChannelsSwappedGoingBack(m.ConvTranspose2d):
    def backward(self, cache, delta):
        z, W = cache
        swapped = W.swapaxes(0, 1).copy() if len(W) == W.shape[1] else W
        return super().backward((z, swapped), delta)[0], super().backward(cache, delta)[1]


@pool("ties", TIES, silent=PLAIN)
class EveryTieGetsDelta(m.MaxPool2d):
    def backward(self, cache, delta):
        _, z = cache
        windows = windows_of(self)
        y = super().forward({}, z)[0]
        seen = windows.padded(z, -np.inf)
        padded = np.zeros_like(seen, order="C")
        taps = zip(windows.views(seen, y.shape[2:]), windows.views(padded, y.shape[2:]), strict=True)
        for entries, back in taps:
            back += (entries == y) * delta
        return windows.cropped(padded, z.shape[2:]), {}


@pool("", PLAIN, silent=True, stride=(1, 2))
class WindowsOverwriteEachOther(m.MaxPool2d):
    def backward(self, cache, delta):
        chosen, z = cache
        windows, count = windows_of(self), chosen.shape[2:]
        padded = np.zeros_like(z, order="C", shape=(*z.shape[:2], *windows.padded_shape(z.shape[2:], count)))
        for tap, entries in enumerate(windows.views(padded, count)):
            np.copyto(entries, delta, where=chosen == tap)
        return windows.cropped(padded, z.shape[2:]), {}


@pool("signs", {"z": constant(-np.arange(1.0, 10).reshape(1, 1, 3, 3))}, silent=PLAIN, padding=1, check="primal_agrees")
class PaddedWithZeros(m.MaxPool2d):
    def forward(self, params, z):
        y, cache = super().forward(params, z)
        windows = windows_of(self)
        within = np.ones(y.shape[2:], bool)
        for tap in windows.views(windows.padded(np.ones(z.shape[2:], bool)), y.shape[2:]):
            within &= tap
        return np.where(within, y, np.maximum(y, 0)), cache


@pool("wrong_only_in_places", PLAIN, silent=True, padding=1, count_include_pad=False)
class PaddingCountsGoingBack(m.AvgPool2d):
    def backward(self, cache, delta):
        return m.AvgPool2d(self.kernel, self.stride, self.padding, self.ceil_mode).backward(cache, delta)


@pool("", {"z": real(2, 1, 3, 3)}, silent=True, ceil_mode=True)
class HangingOverCountsToo(m.AvgPool2d):
    def _counting(self, like, extent):
        count = super()._counting(like, extent)
        return np.full_like(count, windows_of(self).taps) if self.count_include_pad else count


@pool("constant_factor", PLAIN)
class SumGoesBackForMean(m.AvgPool2d):
    def backward(self, cache, delta):
        dz, _ = super().backward(cache, delta)
        return dz * dz.dtype.type(windows_of(self).taps), {}


@image("permuted", {"z": real(2, 3, 4)}, silent={"z": real(3, 5)})
class ColumnsFirstGoingBack(m.Flatten):
    def backward(self, cache, delta):
        return delta.reshape(cache.shape[0], *cache.shape[:0:-1]).transpose(0, *range(cache.ndim - 1, 0, -1)).copy(), {}


@image("permuted", {"z": real(2, 3, 4)}, silent={"z": real(3, 5)}, check="primal_agrees")
class ColumnsFirst(m.Flatten):
    def forward(self, params, z):
        y, cache = super().forward(params, z)
        return z.transpose(0, *range(z.ndim - 1, 0, -1)).reshape(y.shape).copy(), cache


@image("reversed", {"z": real(3, 2, 2)})
class BatchReversedGoingBack(m.Flatten):
    def backward(self, cache, delta):
        return super().backward(cache, delta[::-1])
