"""Bugs in pooling, and in Flatten."""

import numpy as np

import manual_bp as m
from manual_bp.pooling import windows_of
from oracles.strategies import constant, real
from planted_bugs.planting import bug, case_of

PLAIN = real(2, 1, 5, 6)
TIES = constant([[[[1.0, 2, 0], [2, 2, 1], [0, 1, 3]]]])
NEGATIVE = constant(-np.arange(1.0, 10).reshape(1, 1, 3, 3))


def max_pool(z=PLAIN, **options):
    return case_of(m.MaxPool2d((2, 2), **options), z=z)


def average_pool(z=PLAIN, **options):
    return case_of(m.AvgPool2d((2, 2), **options), z=z)


def flatten(*shape):
    return case_of(m.Flatten(), z=real(*shape))


@bug("ties", max_pool(TIES), silent=max_pool())
class GradientToEveryTie(m.MaxPool2d):
    def backward(self, cache, delta):
        _, z = cache
        windows = windows_of(self)
        y = super().forward({}, z)[0]
        image = windows.pad(z, -np.inf)
        padded = np.zeros_like(image, order="C")
        taps = zip(windows.views(image, y.shape[2:]), windows.views(padded, y.shape[2:]), strict=True)
        for entries, back in taps:
            back += (entries == y) * delta
        return windows.crop(padded, z.shape[2:]), {}


# The first and the last row are in one window.
@bug("", max_pool(stride=(1, 2)), silent=max_pool(), acceptable=("wrong_only_in_locations",))
class OverlappingWindowsOverwriteEachOther(m.MaxPool2d):
    def backward(self, cache, delta):
        chosen, z = cache
        windows, count = windows_of(self), chosen.shape[2:]
        padded = np.zeros_like(z, order="C", shape=(*z.shape[:2], *windows.padded_shape(z.shape[2:], count)))
        for tap, entries in enumerate(windows.views(padded, count)):
            np.copyto(entries, delta, where=chosen == tap)
        return windows.crop(padded, z.shape[2:]), {}


@bug("zero_in_some", max_pool(NEGATIVE, padding=1), silent=max_pool(), refused_by="primal_agrees")
class ZeroPadded(m.MaxPool2d):
    def forward(self, params, z):
        y, cache = super().forward(params, z)
        windows = windows_of(self)
        within = np.ones(y.shape[2:], bool)
        for tap in windows.views(windows.pad(np.ones(z.shape[2:], bool)), y.shape[2:]):
            within &= tap
        return np.where(within, y, np.maximum(y, 0)), cache


@bug("wrong_only_in_locations", average_pool(padding=1, count_include_pad=False), silent=average_pool())
class PaddingCountedInBackward(m.AvgPool2d):
    def backward(self, cache, delta):
        return m.AvgPool2d(self.kernel, self.stride, self.padding, self.ceil_mode).backward(cache, delta)


@bug("backward_of_own_forward", average_pool(real(2, 1, 3, 3), ceil_mode=True), silent=average_pool())
class CeilModeOverhangCounted(m.AvgPool2d):
    def _divisors(self, like, extent):
        count = super()._divisors(like, extent)
        return np.full_like(count, windows_of(self).taps) if self.count_include_pad else count


@bug("constant_factor", average_pool())
class GradientNotDividedByTheWindow(m.AvgPool2d):
    def backward(self, cache, delta):
        dz, _ = super().backward(cache, delta)
        return dz * dz.dtype.type(windows_of(self).taps), {}


@bug("permuted", flatten(2, 3, 4), silent=flatten(3, 5))
class ColumnMajorInBackward(m.Flatten):
    def backward(self, cache, delta):
        return delta.reshape(cache.shape[0], *cache.shape[:0:-1]).transpose(0, *range(cache.ndim - 1, 0, -1)).copy(), {}


@bug("permuted", flatten(2, 3, 4), silent=flatten(3, 5), refused_by="primal_agrees")
class ColumnMajor(m.Flatten):
    def forward(self, params, z):
        y, cache = super().forward(params, z)
        return z.transpose(0, *range(z.ndim - 1, 0, -1)).reshape(y.shape).copy(), cache


@bug("reversed", flatten(3, 2, 2))
class BatchReversedInBackward(m.Flatten):
    def backward(self, cache, delta):
        return super().backward(cache, delta[::-1])
