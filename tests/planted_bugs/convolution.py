"""Bugs in convolution and transposed convolution."""

from dataclasses import replace

import numpy as np

import manual_bp as m
from manual_bp import conv
from oracles.strategies import real
from planted_bugs.planting import bug, case_of


def convolution(**options):
    return case_of(m.Conv2d(2, 4, (2, 3), **options), z=real(2, 2, 4, 5))


def transposed(**options):
    return case_of(m.ConvTranspose2d(2, 2, (2, 3), **options), z=real(2, 2, 3, 4))


@bug("reversed", convolution())
class KernelFlipped(m.Conv2d):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        return dz, grads | {"W": grads["W"][..., ::-1, ::-1].copy()}


@bug("constant_factor", convolution())
class BiasGradientAveragedOverPositions(m.Conv2d):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        positions = delta.shape[2] * delta.shape[3]
        return dz, grads | ({"b": grads["b"] / delta.dtype.type(positions)} if self.bias else {})


@bug("", convolution(stride=(1, 2)), silent=convolution())
class StridesSwappedInBackward(m.Conv2d):
    def backward(self, cache, delta):
        (z, W), (dz, grads) = cache, super().backward(cache, delta)
        form = conv._conv_form(self)
        swapped = replace(form, windows=replace(form.windows, stride=self.stride[::-1]))
        return dz, grads | {"W": swapped.weight(z, delta, W.shape)}


@bug("wrong_only_in_locations", convolution(dilation=(2, 1)), silent=convolution())
class DilationIgnoredInBackward(m.Conv2d):
    def backward(self, cache, delta):
        (z, W), (_, grads) = cache, super().backward(cache, delta)
        form = conv._conv_form(self)
        dense = replace(form, windows=replace(form.windows, dilation=(1, 1)))
        return dense.images(W, delta, z.shape[2:]), grads


@bug("wrong_only_in_locations", convolution(groups=2), silent=convolution())
class FirstGroupsKernelForAllGroups(m.Conv2d):
    def backward(self, cache, delta):
        z, W = cache
        first = np.concatenate([W[: len(W) // self.groups]] * self.groups)
        return super().backward((z, first), delta)[0], super().backward(cache, delta)[1]


@bug("", convolution(padding="same"), silent=convolution(), refused_by="primal_agrees")
class SamePaddingPutsTheOddOneFirst(m.Conv2d):
    def forward(self, params, z):
        y, cache = super().forward(params, z)
        if self.padding == "same":
            turned = {name: a[..., ::-1, ::-1].copy() if name == "W" else a for name, a in params.items()}
            y = super().forward(turned, z[..., ::-1, ::-1])[0][..., ::-1, ::-1].copy()
        return y, cache


@bug("", transposed(stride=2, output_padding=1), silent=transposed())
class BiasGradientWithoutOutputPadding(m.ConvTranspose2d):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        rows, columns = (n - more for n, more in zip(delta.shape[2:], self.output_padding, strict=True))
        return dz, grads | ({"b": delta[..., :rows, :columns].sum((0, 2, 3))} if self.bias else {})


@bug("", transposed(padding=(0, 1)), silent=transposed())
class PaddingIgnoredInBackward(m.ConvTranspose2d):
    def backward(self, cache, delta):
        (z, W), (_, grads) = cache, super().backward(cache, delta)
        form = conv._transpose_form(self)
        uncut = replace(form, windows=replace(form.windows, padding=((0, 0), (0, 0))))
        return uncut.maps(W, np.pad(delta, ((0, 0), (0, 0), *((0, 2 * a) for a in self.padding))), z.shape[2:]), grads


@bug("", transposed())
class ChannelAxesSwappedInBackward(m.ConvTranspose2d):
    def backward(self, cache, delta):
        z, W = cache
        swapped = W.swapaxes(0, 1).copy() if len(W) == W.shape[1] else W
        return super().backward((z, swapped), delta)[0], super().backward(cache, delta)[1]
