"""Transposed convolution of images: the adjoint of `Conv2d`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..precision import narrow, widen
from ..protocol import Array, Cache, Params
from ..validation import real_dtype, require_count, require_flag, require_images, require_params, require_shape
from .channels import channel_sums, require_divisible
from .correlation import Correlation
from .windows import Pair, Windows, pair


@dataclass(frozen=True)
class ConvTranspose2d:
    """Each entry of z lays its multiple of the kernel down where `Conv2d` would look; what overlaps is added.

        y[n,o,u,v] = b[o] + Σ z[n,c,p,q] W[c,o,i,j], over c and all s p + d i − a = u, s q + d j − a = v    (31)
        ∂L/∂W[c,o,i,j] = Σ_{n,p,q} z[n,c,p,q] δ[n, o, s p + d i − a, s q + d j − a]                         (32)
        ∂L/∂z[n,c,p,q] = Σ_{o,i,j} W[c,o,i,j] δ[n, o, s p + d i − a, s q + d j − a]                         (33)

    and ∂L/∂b by (29): without a bias, y is what (30) sends back from z, and ∂L/∂z is (27) of δ. So with the same
    weight, each of the two layers is the other's adjoint.

    A convolution with stride s maps s extents to one. `output_padding` says how many more rows and columns than the
    smallest of them y has, after the others.

    Shapes: z (N, n_in, H, W), N may be 0; y (N, n_out, H', W'), H' = s(H − 1) + d(k − 1) + 1 − 2a + output_padding;
    W (n_in, n_out/groups, *kernel), b (n_out,). `bias=False` leaves b out.
    Dtypes: z, W, b share one of float16, float32, float64, longdouble, object; y and gradients have it too; float16
    is computed in float32.
    Raises: ValueError for a wrong shape or parameter name, for groups that do not divide the channels, an
    output_padding of stride and dilation or more, and a padding that leaves nothing of y; TypeError for a wrong or
    mixed dtype.
    Source: Zeiler et al. 2010; Dumoulin & Visin 2016, "A guide to convolution arithmetic", chapter 4.
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
        """Draw W from a normal law of variance 2/(terms of (31)), which keeps a ReLU network's scale; b is zero."""
        dtype = real_dtype(self, dtype)
        shapes, (kernel, stride) = _shapes(self), _pairs(self, "kernel", "stride")
        terms = self.n_in / self.groups * prod(max(1, k / s) for k, s in zip(kernel, stride, strict=True))
        W = rng.standard_normal(shapes["W"]) * sqrt(2 / terms)
        return {name: W.astype(dtype) if name == "W" else np.zeros(shape, dtype) for name, shape in shapes.items()}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return (31)."""
        require_images(self, "forward", "z", z, self.n_in)
        require_params(self, "forward", params, _shapes(self), z)
        W = params["W"]
        y = _core(self).images(widen(W), widen(z), self._extent(z.shape[2:]))
        if self.bias:
            y += widen(params["b"])[:, None, None]
        return narrow(y, z.dtype), (z, W)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return (33), and (32) with (29)."""
        z, W = cache
        require_shape(self, "backward", "delta", delta, (len(z), self.n_out, *self._extent(z.shape[2:])), z, "y")
        core, wide, count = _core(self), widen(delta), z.shape[2:]
        dparams = {"W": narrow(core.weight(wide, widen(z), W.shape), z.dtype)}
        if self.bias:
            dparams["b"] = narrow(channel_sums(wide), z.dtype)
        return narrow(core.maps(widen(W), wide, count), z.dtype), dparams

    def _extent(self, count: Pair) -> Pair:
        """Return (H', W') for z of (H, W)."""
        stride, padding, more = _pairs(self, "stride", "padding", "output_padding")
        sizes = [
            s * (n - 1) + span - 2 * a + m
            for s, n, span, a, m in zip(stride, count, _core(self).windows.span, padding, more, strict=True)
        ]
        if min(sizes) < 1:
            raise ValueError(
                f"ConvTranspose2d.forward: z: padding {padding} leaves images of {tuple(sizes)} from {tuple(count)}"
            )
        return sizes[0], sizes[1]


def _pairs(layer: ConvTranspose2d, *names: str) -> Any:
    """Return fields that are pairs once the layer is made."""
    return [getattr(layer, name) for name in names]


@lru_cache
def _shapes(layer: ConvTranspose2d) -> dict[str, tuple[int, ...]]:
    """Return what `init` draws and `forward` expects."""
    (kernel,) = _pairs(layer, "kernel")
    W, b = (layer.n_in, layer.n_out // layer.groups, *kernel), (layer.n_out,)
    return {"W": W, "b": b} if layer.bias else {"W": W}


@lru_cache
def _core(layer: ConvTranspose2d) -> Correlation:
    """Return the form whose derivatives the layer consists of: y takes the place of its images, z of its maps."""
    kernel, stride, dilation, (top, left) = _pairs(layer, "kernel", "stride", "dilation", "padding")
    return Correlation(Windows(kernel, stride, dilation, ((top, top), (left, left))), layer.groups)
