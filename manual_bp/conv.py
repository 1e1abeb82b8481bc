"""Convolution and transposed convolution of images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod, sqrt

import numpy as np
from numpy.typing import DTypeLike

from ._precision import channel_sums, narrow, widen
from ._validation import (
    real_dtype,
    require_count,
    require_divisible,
    require_flag,
    require_images,
    require_params,
    require_shape,
)
from ._windows import Correlation, Pair, Windows, pair, require_windows
from .protocol import Array, Cache, Params


@dataclass(frozen=True)
class Conv2d:
    """Convolution of images: each of n_out kernels slides over all channels of an image.

    With windows as in (26), and z = 0 in the padding,

        y[n,o,p,q] = b[o] + Σ_{c,i,j} W[o,c,i,j] z[n, c, s p + d i − a, s q + d j − a]      (27)
        ∂L/∂W[o,c,i,j] = Σ_{n,p,q} δ[n,o,p,q] z[n, c, s p + d i − a, s q + d j − a]         (28)
        ∂L/∂b[o] = Σ_{n,p,q} δ[n,o,p,q]                                                     (29)
        ∂L/∂z[n,c,u,v] = Σ δ[n,o,p,q] W[o,c,i,j], over o and all s p + d i − a = u, s q + d j − a = v    (30)

    All are derivatives of one trilinear form, see `Correlation`.

    Args:
        n_in, n_out: the number of channels of z and of y.
        kernel, stride, dilation: a number for rows and columns alike, or a pair (rows, columns).
        padding: how many zeros are put on either side, a number or a pair; "valid" puts none, "same" as many that y
            is as large as z.
        groups: each group of output channels reads its own group of input channels; groups = n_in is a depthwise
            convolution.
        bias: whether there is a b.

    Shapes: z (N, n_in, H, W), N may be 0; y (N, n_out, H', W'), H' = ⌊(H + 2a − d(k − 1) − 1)/s⌋ + 1; W (n_out,
    n_in/groups, *kernel), b (n_out,).
    Dtypes: z, W, b share one of float16, float32, float64, longdouble, object; y and gradients have it too; float16
    is computed in float32.

    Raises:
        ValueError: for a wrong shape or parameter name, groups that do not divide the channels, "same" with a stride,
            and images smaller than the kernel.
        TypeError: for a wrong or mixed dtype.

    Source: docs/derivation.md, eq. (26)–(30); LeCun et al. 1989; Dumoulin & Visin 2016, "A guide to convolution
    arithmetic"; initial weights as in `Linear`.
    """

    n_in: int
    n_out: int
    kernel: int | Pair
    stride: int | Pair = 1
    padding: int | Pair | str = 0
    dilation: int | Pair = 1
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("n_in", "n_out", "groups"):
            require_count(self, "", name, getattr(self, name))
        for name in ("kernel", "stride", "dilation"):
            object.__setattr__(self, name, pair(self, name, getattr(self, name)))
        if not isinstance(self.padding, str):
            object.__setattr__(self, "padding", pair(self, "padding", self.padding, least=0))
        elif self.padding not in ("same", "valid"):
            raise ValueError(f"Conv2d: padding: expected 'same', 'valid', a number or a pair, got {self.padding!r}")
        elif self.padding == "same" and self.stride != (1, 1):
            raise ValueError(f"Conv2d: padding: expected a stride of 1 for 'same', got stride {self.stride}")
        require_divisible(self, self.groups, n_in=self.n_in, n_out=self.n_out)
        require_flag(self, "bias", self.bias)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw W, normal of variance 2/(terms of (27)), which keeps a ReLU network's scale; b is zero."""
        dtype = real_dtype(self, dtype)
        shapes = _conv_shapes(self)
        W = rng.standard_normal(shapes["W"]) * sqrt(2 / prod(shapes["W"][1:]))
        return {name: W.astype(dtype) if name == "W" else np.zeros(shape, dtype) for name, shape in shapes.items()}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return (27)."""
        require_images(self, "forward", "z", z, self.n_in)
        require_params(self, "forward", params, _conv_shapes(self), z)
        form = _conv_form(self)
        count = require_windows(self, form.windows, z.shape[2:])
        W = params["W"]
        y = form.maps(widen(W), widen(z), count)
        if self.bias:
            y += widen(params["b"])[:, None, None]  # in place: y is new, and the largest array here
        return narrow(y, z.dtype), (z, W)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return (30), and (28) with (29)."""
        z, W = cache
        form = _conv_form(self)
        extent = z.shape[2:]
        require_shape(self, "backward", "delta", delta, (len(z), self.n_out, *form.windows.count(extent)), z, "y")
        wide = widen(delta)
        dparams = {"W": narrow(form.weight(widen(z), wide, W.shape), z.dtype)}
        if self.bias:
            dparams["b"] = narrow(channel_sums(wide), z.dtype)
        return narrow(form.images(widen(W), wide, extent), z.dtype), dparams


@lru_cache
def _conv_shapes(layer: Conv2d) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes by name."""
    kernel: tuple[int, int] = layer.kernel  # type: ignore[assignment]  # a pair, once the layer is made
    W, b = (layer.n_out, layer.n_in // layer.groups, *kernel), (layer.n_out,)
    return {"W": W, "b": b} if layer.bias else {"W": W}


@lru_cache
def _conv_form(layer: Conv2d) -> Correlation:
    """Return the form whose derivatives are the layer; z is its images, y its maps."""
    kernel, stride, dilation, padding = (getattr(layer, n) for n in ("kernel", "stride", "dilation", "padding"))
    around: tuple[Pair, Pair]
    if padding == "same":  # the larger half of an odd number comes after the image, as in torch
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        around = (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    else:
        top, left = (0, 0) if padding == "valid" else padding
        around = (top, top), (left, left)
    return Correlation(Windows(kernel, stride, dilation, around), layer.groups)


@dataclass(frozen=True)
class ConvTranspose2d:
    """Transposed convolution of images, the adjoint of `Conv2d`.

    Each entry of z adds its multiple of the kernel to y where `Conv2d` would read.

        y[n,o,u,v] = b[o] + Σ z[n,c,p,q] W[c,o,i,j], over c and all s p + d i − a = u, s q + d j − a = v    (31)
        ∂L/∂W[c,o,i,j] = Σ_{n,p,q} z[n,c,p,q] δ[n, o, s p + d i − a, s q + d j − a]                         (32)
        ∂L/∂z[n,c,p,q] = Σ_{o,i,j} W[c,o,i,j] δ[n, o, s p + d i − a, s q + d j − a]                         (33)

    and ∂L/∂b by (29). Without a bias, y is what (30) computes of z, and ∂L/∂z is (27) of δ: with the same weight, each
    of the two layers is the other's adjoint.

    Args:
        n_in, n_out: the number of channels of z and of y.
        kernel, stride, padding, dilation: a number for rows and columns alike, or a pair (rows, columns).
        output_padding: how many more rows and columns y has than the smallest possible, after the others: a convolution
            with stride s maps s extents to one.
        groups: as in `Conv2d`.
        bias: whether there is a b.

    Shapes: z (N, n_in, H, W), N may be 0; y (N, n_out, H', W'), H' = s(H − 1) + d(k − 1) + 1 − 2a + output_padding;
    W (n_in, n_out/groups, *kernel), b (n_out,).
    Dtypes: z, W, b share one of float16, float32, float64, longdouble, object; y and gradients have it too; float16
    is computed in float32.

    Raises:
        ValueError: for a wrong shape or parameter name, groups that do not divide the channels, an output_padding of
            stride and dilation or more, and a padding that leaves nothing of y.
        TypeError: for a wrong or mixed dtype.

    Source: docs/derivation.md, eq. (29), (31)–(33); Zeiler et al. 2010; Dumoulin & Visin 2016, "A guide to convolution
    arithmetic", chapter 4.
    """

    n_in: int
    n_out: int
    kernel: int | Pair
    stride: int | Pair = 1
    padding: int | Pair = 0
    output_padding: int | Pair = 0
    dilation: int | Pair = 1
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("n_in", "n_out", "groups"):
            require_count(self, "", name, getattr(self, name))
        for name in ("kernel", "stride", "dilation"):
            object.__setattr__(self, name, pair(self, name, getattr(self, name)))
        for name in ("padding", "output_padding"):
            object.__setattr__(self, name, pair(self, name, getattr(self, name), least=0))
        stride, dilation, more = _pairs(self, "stride", "dilation", "output_padding")
        if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
            raise ValueError(
                f"ConvTranspose2d: output_padding: expected less than stride {stride} or dilation {dilation}, "
                f"got {more}"
            )
        require_divisible(self, self.groups, n_in=self.n_in, n_out=self.n_out)
        require_flag(self, "bias", self.bias)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw W, normal of variance 2/(terms of (31)), which keeps a ReLU network's scale; b is zero."""
        dtype = real_dtype(self, dtype)
        shapes, (kernel, stride) = _transpose_shapes(self), _pairs(self, "kernel", "stride")
        terms = self.n_in / self.groups * prod(max(1, k / s) for k, s in zip(kernel, stride, strict=True))
        W = rng.standard_normal(shapes["W"]) * sqrt(2 / terms)
        return {name: W.astype(dtype) if name == "W" else np.zeros(shape, dtype) for name, shape in shapes.items()}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return (31)."""
        require_images(self, "forward", "z", z, self.n_in)
        require_params(self, "forward", params, _transpose_shapes(self), z)
        W = params["W"]
        y = _transpose_form(self).images(widen(W), widen(z), self._extent(z.shape[2:]))
        if self.bias:
            y += widen(params["b"])[:, None, None]
        return narrow(y, z.dtype), (z, W)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return (33), and (32) with (29)."""
        z, W = cache
        require_shape(self, "backward", "delta", delta, (len(z), self.n_out, *self._extent(z.shape[2:])), z, "y")
        form, wide, count = _transpose_form(self), widen(delta), z.shape[2:]
        dparams = {"W": narrow(form.weight(wide, widen(z), W.shape), z.dtype)}
        if self.bias:
            dparams["b"] = narrow(channel_sums(wide), z.dtype)
        return narrow(form.maps(widen(W), wide, count), z.dtype), dparams

    def _extent(self, count: Pair) -> Pair:
        """Return (H', W') for z of (H, W)."""
        stride, padding, more = _pairs(self, "stride", "padding", "output_padding")
        sizes = [
            s * (n - 1) + span - 2 * a + m
            for s, n, span, a, m in zip(stride, count, _transpose_form(self).windows.span, padding, more, strict=True)
        ]
        if min(sizes) < 1:
            raise ValueError(
                f"ConvTranspose2d.forward: z: expected images of which padding {padding} leaves 1 or more, "
                f"got {tuple(count)}, which give {tuple(sizes)}"
            )
        return sizes[0], sizes[1]


def _pairs(layer: ConvTranspose2d, *names: str) -> list[Pair]:
    """Return fields that are pairs once the layer is made."""
    return [getattr(layer, name) for name in names]


@lru_cache
def _transpose_shapes(layer: ConvTranspose2d) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes by name."""
    (kernel,) = _pairs(layer, "kernel")
    W, b = (layer.n_in, layer.n_out // layer.groups, *kernel), (layer.n_out,)
    return {"W": W, "b": b} if layer.bias else {"W": W}


@lru_cache
def _transpose_form(layer: ConvTranspose2d) -> Correlation:
    """Return the form whose derivatives are the layer; y is its images, z its maps."""
    kernel, stride, dilation, (top, left) = _pairs(layer, "kernel", "stride", "dilation", "padding")
    return Correlation(Windows(kernel, stride, dilation, ((top, top), (left, left))), layer.groups)
