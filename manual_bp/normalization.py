"""Batch, layer and root-mean-square normalization, and their core: x̂ = (x − μ)/√(σ² + ε) over groups, and its pullback.

A group is the set of entries that share a mean and a variance: a row, or a channel of a batch. The deviations are
computed before the squares, and corrected by their own mean, which the rounding of μ has moved from 0. So a large
common offset costs no digits, and equal entries deviate by 0 up to the last bit or two of ε. In a group with one degree
of freedom, the cotangent is ε/(σ² + ε)^{3/2} δ, which the general formula computes as a difference of nearly equal
numbers.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import DTypeLike

from ._blocks import blocks
from ._precision import channel_products, channel_sums, narrow, ones, scalar, widen
from ._validation import (
    real_dtype,
    require_channels,
    require_count,
    require_flag,
    require_fraction,
    require_params,
    require_parts,
    require_positive,
    require_shape,
    require_trailing,
)
from .protocol import Array, Arrays, Cache, Number, Params


class Groups(Protocol):
    """The partition of an array into groups; means have a shape that broadcasts against the array."""

    def size(self, x: Array) -> int:
        """Return the number of entries in a group."""
        ...

    def mean(self, x: Array) -> Array:
        """Return the mean of each group."""
        ...

    def mean_product(self, x: Array, y: Array) -> Array:
        """Return the mean of the products x y over each group."""
        ...


class Rows:
    """Each row of (N, n) is a group."""

    def size(self, x: Array) -> int:
        """Return n."""
        return int(x.shape[1])

    def mean(self, x: Array) -> Array:
        """Return the mean of each row, (N, 1)."""
        n = x.shape[1]
        total: Array = x.dot(ones((n, 1), x.dtype))
        total /= n
        return total

    def mean_product(self, x: Array, y: Array) -> Array:
        """Return the mean of the products along each row, (N, 1)."""
        mean: Array = np.vecdot(x, y)[:, None] / x.shape[1]
        return mean


class Channels:
    """Each channel of (N, C, P) is a group, over all samples and positions; a mean over no entries is 0."""

    def size(self, x: Array) -> int:
        """Return N P."""
        return int(x.shape[0] * x.shape[2])

    def mean(self, x: Array) -> Array:
        """Return the mean of each channel, (C, 1)."""
        total: Array = channel_sums(x)[:, None]
        return total / max(self.size(x), 1)

    def mean_product(self, x: Array, y: Array) -> Array:
        """Return the mean of the products over each channel, (C, 1)."""
        return channel_products(x, y)[:, None] / max(self.size(x), 1)


@dataclass(frozen=True)
class Normalized:
    """x̂, with the mean μ (0 if it is not subtracted) and the variance of each group, and 1/√(σ² + ε)."""

    x_hat: Array
    mean: Array
    variance: Array
    scale: Array


def normalize(x: Array, groups: Groups, eps: Number, *, centred: bool = True) -> Normalized:
    """Return x̂ = (x − μ)/√(σ² + ε), without μ unless centred."""
    mean = np.zeros((1, 1), x.dtype)
    deviation = x
    if centred:
        # Two passes: the rounding of μ shifts every deviation alike. The mean of the deviations is that shift, computed
        # of small numbers and so with its digits; E[x²] − μ² in one pass would lose them all for a large offset.
        mean = groups.mean(x)
        deviation = x - mean
        correction = groups.mean(deviation)
        deviation -= correction
        mean += correction
    variance = groups.mean_product(deviation, deviation)
    scale: Array = 1 / np.sqrt(variance + scalar(eps, x))
    # Without centring, deviation is the caller's x, which must not be overwritten.
    x_hat: Array = np.multiply(deviation, scale, out=deviation if centred else None)
    return Normalized(x_hat, mean, variance, scale)


def pull_back(g: Array, norm: Normalized, groups: Groups, eps: Number, *, centred: bool = True) -> None:
    """Overwrite g = ∂L/∂x̂, of mean ḡ, with ∂L/∂x = (g − ḡ − x̂ mean(g x̂))/√(σ² + ε)."""
    if centred:  # first, so that the products with x̂ below do not contain the mean of g, which may be far larger
        g -= groups.mean(g)
    if groups.size(g) - centred <= 1:  # then g − ḡ is a multiple of x̂, and mean(x̂²) = 1 − ε/(σ² + ε)
        g *= scalar(eps, g) * norm.scale * norm.scale
    else:
        g -= norm.x_hat * groups.mean_product(g, norm.x_hat)
    g *= norm.scale


_CHANNELS = Channels()
_ROWS = Rows()
_STATE = "running_mean", "running_var"


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization: each channel is brought to mean 0 and variance 1 over all samples and positions, M of them.

    In training, with μ and σ² = mean (z − μ)² of the channel, and z̃ = (z − μ)/√(σ² + ε),

        y = γ z̃ + β                                                                       (38)
        r' = (1 − m) r + m μ, v' = (1 − m) v + m σ² M/(M − 1), the running mean and variance    (39)
        ∂L/∂z = (g − mean g − z̃ mean(g z̃))/√(σ² + ε), g = γ δ,
                and with cotangents ρ of r' and ν of v': + m ρ/M + 2 m ν (z − μ)/(M − 1)  (40)
        ∂L/∂γ = Σ δ z̃, ∂L/∂β = Σ δ, ∂L/∂r = (1 − m) ρ, ∂L/∂v = (1 − m) ν                  (41)

    In evaluation (`training=False`), z̃ = (z − r)/√(v + ε), y by (38), r and v are inputs but not outputs, and

        ∂L/∂z = g/√(v + ε), ∂L/∂r = −Σ g/√(v + ε), ∂L/∂v = −½ Σ g z̃/(v + ε)               (42)

    The running state is an input and an output like any other: pass r' and v' in again at the next step. If M is 1, no
    variance can be estimated, and v' is v; if M is 0, r' is r too. In training the rows of a batch are not independent.

    Args:
        n: the number of channels.
        eps: ε, positive.
        momentum: m, in [0, 1].
        affine: whether there are γ and β.
        training: whether z is normalized by its own mean and variance, or by the running ones.

    Shapes: z, y (N, n, …), N may be 0; gamma, beta, running_mean, running_var (n,).
    Dtypes: all share one of float16, float32, float64, longdouble, object; float16 is computed in float32.

    Raises:
        ValueError: for a wrong shape or parameter name, an eps that is not positive or a momentum outside [0, 1].
        TypeError: for a wrong or mixed dtype, or another number of inputs.

    Differs from torch's: a channel with one entry is normalized to 0, not refused, because that is its value for every
    ε.

    Source: docs/derivation.md, eq. (38)–(42); Ioffe & Szegedy 2015, "Batch Normalization", with the moments that
    torch's batch_norm keeps.
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
        """Y, and in training the next running state."""
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
            norm = normalize(x, _CHANNELS, self.eps)
        else:
            scale = 1 / np.sqrt(var + scalar(self.eps, x))
            norm = Normalized((x - mean) * scale, mean, var, scale)
        gamma = widen(params["gamma"])[:, None] if self.affine else None
        y = norm.x_hat.copy() if gamma is None else norm.x_hat * gamma
        if self.affine:
            y += widen(params["beta"])[:, None]
        y = narrow(y.reshape(z.shape), z.dtype)
        cache = z, gamma, norm
        return ((y, *self._next_state(_CHANNELS.size(x), state, norm)) if self.training else y), cache

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return (40) or (42), and (41)."""
        z, gamma, norm = cache
        delta, *moments = require_parts(self, "backward", "delta", delta, self.outputs)
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        for name, x in zip(_STATE, moments, strict=False):
            require_shape(self, "backward", f"delta of {name}", x, (self.n,), z, "y")
        dy = _flat(widen(delta))
        g = dy.copy() if gamma is None else dy * gamma
        dz = (self._in_training if self.training else self._in_evaluation)(g, norm, [widen(x) for x in moments])
        dparams = {}
        if self.affine:
            dparams = {"gamma": channel_products(dy, norm.x_hat), "beta": channel_sums(dy)}
        dz, *state = (narrow(x, z.dtype) for x in dz)
        return (dz.reshape(z.shape), *state), {name: narrow(d, z.dtype) for name, d in dparams.items()}

    def _in_training(self, g: Array, norm: Normalized, moments: list[Array]) -> tuple[Array, ...]:
        """Return (40) and (41), for g = ∂L/∂z̃ and the cotangents of the next running state."""
        m, size = scalar(self.momentum, g), _CHANNELS.size(g)
        pull_back(g, norm, _CHANNELS, self.eps)
        dz, (dmean, dvar) = g, moments
        if size > 0 and dmean.any():  # rarely: few losses depend on a running state
            dz += (m * dmean / size)[:, None]
        if size > 1 and dvar.any():  # z − μ is z̃ times √(σ² + ε)
            dz += norm.x_hat * ((2 * m * dvar / (size - 1))[:, None] / norm.scale)
        return dz, *((1 - m) * x if known else x.copy() for known, x in zip(self._is_known(size), moments, strict=True))

    def _in_evaluation(self, g: Array, norm: Normalized, moments: list[Array]) -> tuple[Array, ...]:
        """Return (42), for g = ∂L/∂z̃."""
        scale = norm.scale[:, 0]
        return g * norm.scale, -channel_sums(g) * scale, -channel_products(g, norm.x_hat) * scale * scale / 2

    def _next_state(self, size: int, state: list[Array], norm: Normalized) -> Iterator[Array]:
        """Yield the running mean and variance by (39), unchanged if the batch has none."""
        estimates = norm.mean[:, 0], norm.variance[:, 0] * size / max(size - 1, 1)
        for known, x, estimate in zip(self._is_known(size), state, estimates, strict=True):
            m = scalar(self.momentum, x)
            yield narrow((1 - m) * widen(x) + m * estimate, x.dtype) if known else x.copy()

    def _is_known(self, size: int) -> tuple[bool, bool]:
        """Return whether so many entries have a mean, and whether they have a variance."""
        return size > 0, size > 1

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the parameters' shapes by name."""
        return dict.fromkeys(("gamma", "beta"), (self.n,)) if self.affine else {}


def _flat(x: Array) -> Array:
    """Return (N, C, …) as (N, C, P)."""
    return x.reshape(*x.shape[:2], prod(x.shape[2:]))


@dataclass(frozen=True)
class RowNorm(ABC):
    """Base of `LayerNorm` and `RMSNorm`: y = γ z̃ + β over the last axes of z, rows taken block by block.

    A subclass says whether z̃ is centred, and so whether there is a β.
    """

    shape: int | tuple[int, ...]
    eps: float = 1e-5
    affine: bool = True

    centred: ClassVar[bool]
    preserves_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Make a tuple of the shape, and check the fields."""
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
        norms = []
        for rows in blocks(flat):  # a block stays in cache through mean, deviation, variance and scale
            block = normalize(flat[rows], _ROWS, self.eps, centred=self.centred)
            np.multiply(block.x_hat, 1 if gamma is None else gamma, out=y[rows])
            if beta is not None:
                y[rows] += beta
            norms.append((rows, block))
        return narrow(y.reshape(z.shape), z.dtype), (z, gamma, norms)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return ∂L/∂z, and the gradients of γ and β where there are any."""
        z, gamma, norms = cache
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        flat = widen(delta).reshape(-1, prod(self._axes()))
        dz = np.empty_like(flat, order="C")
        dparams = {name: np.zeros_like(flat, order="C", shape=flat.shape[1]) for name in self._shapes()}
        for rows, block in norms:
            dy, g = flat[rows], dz[rows]
            np.multiply(dy, 1 if gamma is None else gamma, out=g)
            self._pull_back(g, block)
            for name, factor in (("gamma", block.x_hat), ("beta", None)):
                if name in dparams:
                    # Added block by block, so the rounding error grows with the number of blocks, not of rows.
                    dparams[name] += ones(len(dy), dy.dtype).dot(dy if factor is None else dy * factor)
        shaped = {name: narrow(d.reshape(self._axes()), z.dtype) for name, d in dparams.items()}
        return narrow(dz.reshape(z.shape), z.dtype), shaped

    def _pull_back(self, g: Array, block: Normalized) -> None:
        """Overwrite ∂L/∂z̃ with ∂L/∂z."""
        pull_back(g, block, _ROWS, self.eps, centred=self.centred)

    def _axes(self) -> tuple[int, ...]:
        return self.shape if isinstance(self.shape, tuple) else (self.shape,)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the parameters' shapes by name."""
        names = ("gamma", "beta") if self.centred else ("gamma",)
        return dict.fromkeys(names, self._axes()) if self.affine else {}


@dataclass(frozen=True)
class LayerNorm(RowNorm):
    """Layer normalization: the last axes of each sample, of the given shape, are brought to mean 0 and variance 1.

    With μ and σ² = mean (z − μ)² over those axes, n entries, and z̃ = (z − μ)/√(σ² + ε),

        y = γ z̃ + β                                                                       (43)
        ∂L/∂z = (g − mean g − z̃ mean(g z̃))/√(σ² + ε), g = γ δ                             (44)
        ∂L/∂γ = Σ δ z̃, ∂L/∂β = Σ δ, over all samples                                       (45)

    The variance is that of the n entries, not an estimate over n − 1.

    Args:
        shape: the extents of the normalized axes; a number stands for one axis.
        eps: ε, positive.
        affine: whether there are γ and β.

    Shapes: z, y (…, *shape), at least one axis before those, any of which may be 0; gamma, beta `shape`.
    Dtypes: z, gamma, beta share one of float16, float32, float64, longdouble, object; y and gradients have it too;
    float16 is computed in float32.

    Raises:
        ValueError: for a wrong shape or parameter name, or an eps that is not positive.
        TypeError: for a wrong or mixed dtype.

    Source: docs/derivation.md, eq. (43)–(45); Ba, Kiros & Hinton 2016, "Layer Normalization".
    """

    centred: ClassVar[bool] = True


@dataclass(frozen=True)
class RMSNorm(RowNorm):
    """Root-mean-square normalization: the last axes of each sample, of the given shape, are brought to mean square 1.

    With ρ² = mean z² over those axes, and z̃ = z/√(ρ² + ε),

        y = γ z̃                                                                           (46)
        ∂L/∂z = (g − z̃ mean(g z̃))/√(ρ² + ε), g = γ δ; ∂L/∂γ = Σ δ z̃ over all samples       (47)

    Args:
        shape: the extents of the normalized axes; a number stands for one axis.
        eps: ε, positive.
        affine: whether there is a γ.

    Shapes: z, y (…, *shape), at least one axis before those, any of which may be 0; gamma `shape`.
    Dtypes: z, gamma share one of float16, float32, float64, longdouble, object; y and gradients have it too; float16
    is computed in float32.

    Raises:
        ValueError: for a wrong shape or parameter name, or an eps that is not positive.
        TypeError: for a wrong or mixed dtype.

    Differs from torch's RMSNorm: eps is 1e-5 unless given, in every precision, because a layer's function should not
    depend on the dtype of its input; torch takes the dtype's machine epsilon.

    Source: docs/derivation.md, eq. (46)–(47); Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
    """

    centred: ClassVar[bool] = False
