"""Batch normalization, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..precision import narrow, scalar, widen
from ..protocol import Array, Arrays, Cache, Params
from ..validation import (
    real_dtype,
    require_channels,
    require_count,
    require_flag,
    require_fraction,
    require_params,
    require_parts,
    require_positive,
    require_shape,
)
from .channels import channel_products, channel_sums
from .normalization import Channels, Normalized, normalized, pull_back

_CHANNELS = Channels()
_STATE = "running_mean", "running_var"


@dataclass(frozen=True)
class BatchNorm:
    """Each channel is brought to mean 0 and variance 1, over all samples and places, M of them.

    In training, with μ and σ² = mean (z − μ)² of the channel, and z̃ = (z − μ)/√(σ² + ε),

        y = γ z̃ + β                                                                       (38)
        r' = (1 − m) r + m μ, v' = (1 − m) v + m σ² M/(M − 1), the running mean and variance    (39)
        ∂L/∂z = (g − mean g − z̃ mean(g z̃))/√(σ² + ε), g = γ δ,
                and with cotangents ρ of r' and ν of v': + m ρ/M + 2 m ν (z − μ)/(M − 1)  (40)
        ∂L/∂γ = Σ δ z̃, ∂L/∂β = Σ δ, ∂L/∂r = (1 − m) ρ, ∂L/∂v = (1 − m) ν                  (41)

    In evaluation (`training=False`), z̃ = (z − r)/√(v + ε), y by (38), r and v go in and do not come out, and

        ∂L/∂z = g/√(v + ε), ∂L/∂r = −Σ g/√(v + ε), ∂L/∂v = −½ Σ g z̃/(v + ε)               (42)

    The running state is an input and an output like any other: hand r' and v' in again at the next step. Where M is 1
    there is no estimate of a variance, and v' is v; where it is 0, r' is r too. `affine=False` leaves γ and β out.
    The rows of a batch are not independent in training.

    Shapes: z, y (N, n, …), N may be 0; gamma, beta, running_mean, running_var (n,).
    Dtypes: all share one of float16, float32, float64, longdouble, object; float16 is computed in float32.
    Raises: ValueError for a wrong shape or parameter name, an eps that is not positive or a momentum outside of 0 … 1;
    TypeError for a wrong or mixed dtype, or another number of inputs.
    Source: Ioffe & Szegedy 2015, "Batch Normalization", with the moments that torch's batch_norm keeps.
    Differs from torch's: a channel with one entry is normalized to 0, not refused, because it is that at any ε.
    """

    n: int
    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = True
    training: bool = True

    preserves_shape: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ("z", *_STATE)

    def __post_init__(self) -> None:
        require_count(self, "", "n", self.n)
        require_positive(self, "", "eps", self.eps)
        require_fraction(self, "", "momentum", self.momentum, or_one=True)
        require_flag(self, "affine", self.affine)
        require_flag(self, "training", self.training)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names the running state where it changes."""
        return ("y", *_STATE) if self.training else ("y",)

    @property
    def n_in(self) -> int:
        """The number of channels."""
        return self.n

    @property
    def n_out(self) -> int:
        """The number of channels."""
        return self.n

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return γ of ones and β of zeros."""
        dtype = real_dtype(self, dtype)
        return {name: (np.ones if name == "gamma" else np.zeros)(s, dtype) for name, s in self._shapes().items()}

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return y, and in training the next running mean and variance."""
        z, *state = require_parts(self, "forward", "z", z, self.inputs)
        require_channels(self, "forward", "z", z, self.n)
        for name, x in zip(_STATE, state, strict=True):
            require_shape(self, "forward", name, x, (self.n,), z, "z")
        require_params(self, "forward", params, self._shapes(), z)
        x, (mean, var) = _flat(widen(z)), (widen(part)[:, None] for part in state)
        if self.training:
            by = normalized(x, _CHANNELS, self.eps)
        else:
            scale = 1 / np.sqrt(var + scalar(self.eps, x))
            by = Normalized((x - mean) * scale, mean, var, scale)
        gamma = widen(params["gamma"])[:, None] if self.affine else None
        y = by.x_hat.copy() if gamma is None else by.x_hat * gamma
        if self.affine:
            y += widen(params["beta"])[:, None]
        y = narrow(y.reshape(z.shape), z.dtype)
        cache = z, gamma, by
        return ((y, *self._moved(_CHANNELS.size(x), state, by)) if self.training else y), cache

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return (40) or (42), and (41)."""
        z, gamma, by = cache
        delta, *moved = require_parts(self, "backward", "delta", delta, self.outputs)
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        for name, x in zip(_STATE, moved, strict=False):
            require_shape(self, "backward", f"delta of {name}", x, (self.n,), z, "y")
        of_y = _flat(widen(delta))
        g = of_y.copy() if gamma is None else of_y * gamma
        dz = (self._in_training if self.training else self._in_evaluation)(g, by, [widen(x) for x in moved])
        dparams = {}
        if self.affine:
            dparams = {"gamma": channel_products(of_y, by.x_hat), "beta": channel_sums(of_y)}
        dz, *state = (narrow(x, z.dtype) for x in dz)
        return (dz.reshape(z.shape), *state), {name: narrow(d, z.dtype) for name, d in dparams.items()}

    def _in_training(self, g: Array, by: Normalized, moved: list[Array]) -> tuple[Array, ...]:
        """Return (40) and (41), for g = ∂L/∂z̃ and the cotangents of the next running state."""
        m, size = scalar(self.momentum, g), _CHANNELS.size(g)
        pull_back(g, by, _CHANNELS, self.eps)
        dz, (of_mean, of_var) = g, moved
        if size > 0 and of_mean.any():  # hardly ever: who derives by a running state?
            dz += (m * of_mean / size)[:, None]
        if size > 1 and of_var.any():  # z − μ is z̃ times √(σ² + ε)
            dz += by.x_hat * ((2 * m * of_var / (size - 1))[:, None] / by.scale)
        return dz, *((1 - m) * x if known else x.copy() for known, x in zip(self._known(size), moved, strict=True))

    def _in_evaluation(self, g: Array, by: Normalized, moved: list[Array]) -> tuple[Array, ...]:
        """Return (42), for g = ∂L/∂z̃."""
        scale = by.scale[:, 0]
        return g * by.scale, -channel_sums(g) * scale, -channel_products(g, by.x_hat) * scale * scale / 2

    def _moved(self, size: int, state: list[Array], by: Normalized) -> Iterator[Array]:
        """Yield (39): the running mean and variance, each a step nearer to the batch's where it has one."""
        estimates = by.mean[:, 0], by.variance[:, 0] * size / max(size - 1, 1)
        for known, x, estimate in zip(self._known(size), state, estimates, strict=True):
            m = scalar(self.momentum, x)
            yield narrow((1 - m) * widen(x) + m * estimate, x.dtype) if known else x.copy()

    def _known(self, size: int) -> tuple[bool, bool]:
        """Return whether so many entries have a mean, and a variance."""
        return size > 0, size > 1

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return what `init` gives and `forward` expects."""
        return dict.fromkeys(("gamma", "beta"), (self.n,)) if self.affine else {}


def _flat(x: Array) -> Array:
    """Return (N, C, …) as (N, C, places)."""
    return x.reshape(*x.shape[:2], prod(x.shape[2:]))
