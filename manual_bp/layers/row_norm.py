"""What layer and root-mean-square normalization share: rows, taken so many at a time that they stay near at hand."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..blocks import blocks
from ..precision import narrow, ones, widen
from ..protocol import Array, Cache, Params
from ..validation import (
    real_dtype,
    require_count,
    require_flag,
    require_params,
    require_positive,
    require_shape,
    require_trailing,
)
from .normalization import Normalized, Rows, normalized, pull_back

_ROWS = Rows()


@dataclass(frozen=True)
class RowNorm(ABC):
    """y = γ z̃ + β over the last axes of z; a subclass says whether z̃ is centred, and so whether there is a β."""

    shape: int | tuple[int, ...]
    eps: float = 1e-5
    affine: bool = True

    centred: ClassVar[bool]
    preserves_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Make a tuple of the shape; refuse what is none."""
        shape = self.shape if isinstance(self.shape, tuple) else (self.shape,)
        if not shape:
            raise ValueError(f"{type(self).__name__}: shape: expected one axis or more, got ()")
        for extent in shape:
            require_count(self, "", "shape", extent)
        object.__setattr__(self, "shape", shape)
        require_positive(self, "", "eps", self.eps)
        require_flag(self, "affine", self.affine)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return γ of ones and β of zeros."""
        dtype = real_dtype(self, dtype)
        return {name: (np.ones if name == "gamma" else np.zeros)(s, dtype) for name, s in self._shapes().items()}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return γ z̃ + β."""
        require_trailing(self, "forward", "z", z, self._axes())
        require_params(self, "forward", params, self._shapes(), z)
        flat = widen(z).reshape(-1, prod(self._axes()))
        gamma, beta = (widen(params[n]).ravel() if n in params else None for n in ("gamma", "beta"))
        y = np.empty_like(flat, order="C")
        found = []
        for rows in blocks(flat):
            block = normalized(flat[rows], _ROWS, self.eps, centred=self.centred)
            np.multiply(block.x_hat, 1 if gamma is None else gamma, out=y[rows])
            if beta is not None:
                y[rows] += beta
            found.append((rows, block))
        return narrow(y.reshape(z.shape), z.dtype), (z, gamma, found)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return ∂L/∂z, and the gradients of γ and β where there are any."""
        z, gamma, found = cache
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        flat = widen(delta).reshape(-1, prod(self._axes()))
        dz = np.empty_like(flat, order="C")
        dparams = {name: np.zeros_like(flat, order="C", shape=flat.shape[1]) for name in self._shapes()}
        for rows, block in found:
            of_y, g = flat[rows], dz[rows]
            np.multiply(of_y, 1 if gamma is None else gamma, out=g)
            self._pull_back(g, block)
            for name, factor in (("gamma", block.x_hat), ("beta", None)):
                if name in dparams:
                    dparams[name] += ones(len(of_y), of_y.dtype).dot(of_y if factor is None else of_y * factor)
        shaped = {name: narrow(d.reshape(self._axes()), z.dtype) for name, d in dparams.items()}
        return narrow(dz.reshape(z.shape), z.dtype), shaped

    def _pull_back(self, g: Array, block: Normalized) -> None:
        """Overwrite ∂L/∂z̃ with ∂L/∂z."""
        pull_back(g, block, _ROWS, self.eps, centred=self.centred)

    def _axes(self) -> Any:
        return self.shape

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return what `init` gives and `forward` expects."""
        names = ("gamma", "beta") if self.centred else ("gamma",)
        return dict.fromkeys(names, self._axes()) if self.affine else {}
