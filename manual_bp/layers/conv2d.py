"""Convolution of images."""

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
from .windows import Pair, Windows, pair, require_windows


@dataclass(frozen=True)
class Conv2d:
    """Each of n_out kernels slides over all channels of an image.

    With windows as in (26), and z 0 in the padding,

        y[n,o,p,q] = b[o] + Σ_{c,i,j} W[o,c,i,j] z[n, c, s p + d i − a, s q + d j − a]      (27)
        ∂L/∂W[o,c,i,j] = Σ_{n,p,q} δ[n,o,p,q] z[n, c, s p + d i − a, s q + d j − a]         (28)
        ∂L/∂b[o] = Σ_{n,p,q} δ[n,o,p,q]                                                     (29)
        ∂L/∂z[n,c,u,v] = Σ δ[n,o,p,q] W[o,c,i,j], over o and all s p + d i − a = u, s q + d j − a = v    (30)

    All are derivatives of one form, see `correlation`. In `groups`, output channels see but their share of the input
    channels; groups = n_in is a depthwise convolution.

    `kernel`, `stride`, `dilation` and `padding` are a number for rows and columns alike or a pair (rows, columns).
    `padding` puts so many zeros on either side; "valid" puts none, and "same" so many that y is as large as z.

    Shapes: z (N, n_in, H, W), N may be 0; y (N, n_out, H', W'), H' = ⌊(H + 2a − d(k − 1) − 1)/s⌋ + 1; W (n_out,
    n_in/groups, *kernel), b (n_out,). `bias=False` leaves b out.
    Dtypes: z, W, b share one of float16, float32, float64, longdouble, object; y and gradients have it too; float16
    is computed in float32.
    Raises: ValueError for a wrong shape or parameter name, for groups that do not divide the channels, "same" with a
    stride, and images smaller than the kernel; TypeError for a wrong or mixed dtype.
    Source: LeCun et al. 1989; Dumoulin & Visin 2016, "A guide to convolution arithmetic"; weights as in `Linear`.
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
            raise ValueError(f"Conv2d: padding: 'same' needs a stride of 1, got {self.stride}")
        require_divisible(self, self.groups, n_in=self.n_in, n_out=self.n_out)
        require_flag(self, "bias", self.bias)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw W from a normal law of variance 2/(terms of (27)), which keeps a ReLU network's scale; b is zero."""
        dtype = real_dtype(self, dtype)
        shapes = _shapes(self)
        W = rng.standard_normal(shapes["W"]) * sqrt(2 / prod(shapes["W"][1:]))
        return {name: W.astype(dtype) if name == "W" else np.zeros(shape, dtype) for name, shape in shapes.items()}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return (27)."""
        require_images(self, "forward", "z", z, self.n_in)
        require_params(self, "forward", params, _shapes(self), z)
        core = _core(self)
        count = require_windows(self, core.windows, z.shape[2:])
        W = params["W"]
        y = core.maps(widen(W), widen(z), count)
        if self.bias:
            y += widen(params["b"])[:, None, None]
        return narrow(y, z.dtype), (z, W)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return (30), and (28) with (29)."""
        z, W = cache
        core = _core(self)
        extent = z.shape[2:]
        require_shape(self, "backward", "delta", delta, (len(z), self.n_out, *core.windows.count(extent)), z, "y")
        wide = widen(delta)
        dparams = {"W": narrow(core.weight(widen(z), wide, W.shape), z.dtype)}
        if self.bias:
            dparams["b"] = narrow(channel_sums(wide), z.dtype)
        return narrow(core.images(widen(W), wide, extent), z.dtype), dparams


@lru_cache
def _shapes(layer: Conv2d) -> dict[str, tuple[int, ...]]:
    """Return what `init` draws and `forward` expects."""
    kernel: Any = layer.kernel
    W, b = (layer.n_out, layer.n_in // layer.groups, *kernel), (layer.n_out,)
    return {"W": W, "b": b} if layer.bias else {"W": W}


@lru_cache
def _core(layer: Conv2d) -> Correlation:
    """Return the form whose derivatives the layer consists of."""
    kernel, stride, dilation, padding = (getattr(layer, n) for n in ("kernel", "stride", "dilation", "padding"))
    around: tuple[Pair, Pair]
    if padding == "same":  # of an odd number, the larger half comes after the image, as in torch
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        around = (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    else:
        top, left = (0, 0) if padding == "valid" else padding
        around = (top, top), (left, left)
    return Correlation(Windows(kernel, stride, dilation, around), layer.groups)
