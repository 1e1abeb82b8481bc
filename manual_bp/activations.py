"""Pointwise activations: y = σ(z) entry by entry, and the learned rectifier.

δ before σ is δ after σ times σ'(z). Every σ' is computed without cancellation, in both tails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from ._blocks import blockwise
from ._normal import normal
from ._precision import at_least_float64, narrow, scalar, widen, zero
from ._validation import (
    NO_NAMES,
    OBJECT,
    real_dtype,
    require_channels,
    require_count,
    require_names,
    require_positive,
    require_ranked,
    require_real,
    require_rows,
    require_shape,
)
from .protocol import Array, Cache, Number, Params


class Elementwise(ABC):
    """Base of the pointwise activations.

    y = σ(z) entry by entry; δ before σ is δ after σ times σ'(z). A subclass states σ and σ'.

    Source: docs/derivation.md, eq. (16), the factors between the layers.
    """

    preserves_shape: ClassVar[bool] = True

    @abstractmethod
    def value(self, z: Array) -> Array:
        """Return σ(z), a new array."""

    @abstractmethod
    def derivative(self, z: Array) -> Array:
        """Return σ'(z), a new array."""

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: the layer has no parameters."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return σ(z); z has any rank from 1 up."""
        self._check_inputs(params, z)
        return self.value(z), z

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return delta · σ'(z)."""
        require_shape(self, "backward", "delta", delta, cache.shape, cache, "y")
        return delta * self.derivative(cache), {}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return diag σ'(z) for each row of z, shape (N, n, n)."""
        require_rows(self, "jacobian", "z", z)
        require_names(self, "jacobian", "params", params, NO_NAMES)
        rows, n = z.shape
        result = np.zeros((rows, n, n), z.dtype)
        result[:, range(n), range(n)] = self.derivative(z)
        return result

    def _check_inputs(self, params: Params, z: Array) -> None:
        require_ranked(self, "forward", "z", z)
        if params != {}:
            require_names(self, "forward", "params", params, NO_NAMES)


class Transcendental(Elementwise):
    """Base of the activations whose σ and σ' share an exponential, which costs more than all else.

    `forward` computes both. The cache is σ'(z), which takes the memory that z would take. A subclass states the pair.
    """

    @abstractmethod
    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return σ(z) and σ'(z), new arrays."""

    def value(self, z: Array) -> Array:
        """Return σ(z), a new array."""
        return self.with_derivative(z)[0]

    def derivative(self, z: Array) -> Array:
        """Return σ'(z), a new array."""
        return self.with_derivative(z)[1]

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return σ(z); z has any rank from 1 up."""
        self._check_inputs(params, z)
        y, slope = blockwise(self.with_derivative, z)
        return y, slope

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return delta · σ'(z)."""
        require_shape(self, "backward", "delta", delta, cache.shape, cache, "y")
        return delta * cache, {}


def minus_magnitude(z: Array) -> Array:
    """Return −|z|, at 0 as −z, by a comparison, which every number type has."""
    return np.minimum(-z, z)


def logistic(z: Array, e: Array) -> Array:
    """Return 1/(1 + e^{−z}), given e = e^{−|z|}: 1/(1 + e) where z >= 0 and e/(1 + e) elsewhere."""
    # As e <= 1, the choice is a maximum: np.where takes a branch for each entry, mispredicted half the time.
    above = np.where(z >= 0, 1, e) if z.dtype == OBJECT else np.maximum(z >= 0, e)
    result: Array = above / (1 + e)
    return result


@dataclass(frozen=True)
class Identity(Elementwise):
    """Identity: σ(z) = z, σ'(z) = 1. The output is a copy, never z itself.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.
    """

    def value(self, z: Array) -> Array:
        """Return a copy of z."""
        return z.copy()

    def derivative(self, z: Array) -> Array:
        """Return ones."""
        return np.ones_like(z)


@dataclass(frozen=True)
class ReLU(Elementwise):
    """Rectified linear unit: σ(z) = max(z, 0), σ'(z) = 1 where z > 0 and 0 elsewhere, also at 0.

    Every number in [0, 1] is a subgradient at 0; this layer takes 0, as the literature and torch do. `kink_convention`
    maps the location of the kink to the derivative declared there.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.

    Source: Nair & Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines".
    """

    kink_convention: ClassVar[Mapping[float, float]] = MappingProxyType({0.0: 0.0})

    def value(self, z: Array) -> Array:
        """Return max(0, z): of equal exact numbers the maximum is the first, which has derivative 0."""
        return np.maximum(zero(z.dtype), z)

    def derivative(self, z: Array) -> Array:
        """Return 1 where z > 0, 0 elsewhere, as numbers, since a product with a mask is slower."""
        return (z > zero(z.dtype)).astype(z.dtype)


@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    """Leaky rectified linear unit: σ(z) = z where z > 0 and slope·z elsewhere.

    σ'(z) = 1 where z > 0 and slope elsewhere, also at 0. `kink_convention` maps the location of the kink to the
    derivative declared there, the slope.

    Args:
        slope: the derivative for z <= 0; a Fraction works too, for exact arithmetic.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept.

    Raises:
        ValueError: for rank 0, a delta of another shape or a slope that is not finite.
        TypeError: for a dtype that is not floating or a slope that is not a number.

    Source: Maas, Hannun & Ng 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models".
    """

    slope: Number = 0.01

    def __post_init__(self) -> None:
        require_real(self, "", "slope", self.slope)

    @property
    def kink_convention(self) -> Mapping[float, float]:
        """The derivative declared at 0."""
        return {0.0: self.slope}

    def value(self, z: Array) -> Array:
        """Return z where z > 0, slope·z elsewhere."""
        y: Array = np.minimum(z, 0)
        y *= scalar(self.slope, z)
        y += np.maximum(0, z)  # of equal exact numbers the maximum is the first: at 0 the slope is that of z <= 0
        return y

    def derivative(self, z: Array) -> Array:
        """Return 1 where z > 0, the slope elsewhere."""
        return _rectified_slope(z, scalar(self.slope, z))


_PRELU_NAMES = frozenset({"slope"})


@dataclass(frozen=True)
class PReLU:
    """Rectified linear unit that learns its slope: one slope, or one for each channel on axis 1.

        y = z where z > 0, az elsewhere                                             (80)
        dz = δ where z > 0, aδ elsewhere, also at 0;  da = Σ δ min(z, 0)            (81)

    The sum runs over all entries that share a slope. `kink_convention` maps the location of the kink to the derivative
    declared there, the initial slope.

    Args:
        channels: the number of slopes; 1 for one slope for all entries.
        initial: the slope that `init` gives.

    Shapes: z, y, delta of one shape, rank 1 or more; (N, channels, …) if there are several channels; slope (channels,).
    Dtypes: z and slope share a floating dtype or object, kept; float16 is summed in float32.

    Raises:
        ValueError: for a wrong shape or parameter name, channels < 1 or an initial slope that is not finite.
        TypeError: for a wrong or mixed dtype.

    Source: docs/derivation.md, eq. (80)–(81); He et al. 2015, "Delving Deep into Rectifiers", eq. 1 and 8.
    """

    preserves_shape: ClassVar[bool] = True

    channels: int = 1
    initial: Number = 0.25

    def __post_init__(self) -> None:
        require_count(self, "", "channels", self.channels)
        require_real(self, "", "initial", self.initial)

    @property
    def kink_convention(self) -> Mapping[float, float]:
        """The derivative declared at 0, with the slope that `init` gives."""
        return {0.0: self.initial}

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return the initial slope for each channel."""
        return {"slope": np.full(self.channels, self.initial, real_dtype(self, dtype))}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return z where z > 0, az elsewhere."""
        slope = self._check_inputs("forward", params, z)
        return z * _rectified_slope(z, slope), (z, slope)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return dz and da (81)."""
        z, slope = cache
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        dz = delta * _rectified_slope(z, slope)
        # Sums of many products: widened, because they overflow in float16.
        products = widen(delta) * widen(np.minimum(zero(z.dtype), z))
        axes = tuple(axis for axis in range(z.ndim) if self.channels == 1 or axis != 1)
        dslope = products.sum(axis=axes, keepdims=True).reshape(self.channels)
        return dz, {"slope": narrow(dslope, z.dtype)}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return diag σ'(z) for each row of z, shape (N, n, n)."""
        require_rows(self, "jacobian", "z", z)
        slope = self._check_inputs("jacobian", params, z)
        rows, n = z.shape
        result = np.zeros((rows, n, n), z.dtype)
        result[:, range(n), range(n)] = _rectified_slope(z, slope)
        return result

    def _check_inputs(self, method: str, params: Params, z: Array) -> Array:
        """Check params and z, and return the slope in a shape that broadcasts against z."""
        if self.channels == 1:
            require_ranked(self, method, "z", z)
        else:
            require_channels(self, method, "z", z, self.channels)
        require_names(self, method, "params", params, _PRELU_NAMES)
        slope = params["slope"]
        require_shape(self, method, "params['slope']", slope, (self.channels,), z, "z")
        return slope if self.channels == 1 else slope.reshape(-1, *(1,) * (z.ndim - 2))


def _rectified_slope(z: Array, slope: Number) -> Array:
    """Return 1 where z > 0 and slope elsewhere, without np.where, which takes a branch for each entry."""
    above = (z > zero(z.dtype)).astype(z.dtype)
    result: Array = 1 - above
    result *= slope
    result += above
    return result


# exp(−2 · 8192) is 0 in every floating type, and doubling 8192 does not overflow, even in float16.
_TANH_SATURATED = -8192


@dataclass(frozen=True)
class Tanh(Elementwise):
    """Hyperbolic tangent: σ(z) = tanh z, σ'(z) = sech² z = 4e/(1 + e)² with e = e^{−2|z|}.

    The usual 1 − y² cancels: it is 0 once y rounds to 1 (|z| > 9 in float32), and before that it has lost digits that
    sech² keeps down to the smallest positive number.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.
    """

    def value(self, z: Array) -> Array:
        """Return tanh z."""
        return np.tanh(z)

    def derivative(self, z: Array) -> Array:
        """Return sech² z."""
        slope: Array = blockwise(_squared_sech, z)
        return slope


def _squared_sech(z: Array) -> Array:
    # The exponent is never positive, so e lies in [0, 1] and nothing overflows; sech² is even, so |z| is enough.
    e: Array = np.exp(2 * np.maximum(minus_magnitude(z), _TANH_SATURATED))
    # 4e/(1 + e)² only multiplies and divides: it keeps e's digits, where 1 − tanh² subtracts nearly equal numbers.
    slope: Array = 4 * e / ((1 + e) * (1 + e))
    return slope


@dataclass(frozen=True)
class Sigmoid(Transcendental):
    """Logistic sigmoid: σ(z) = 1/(1 + e^{−z}), without overflow and accurate in both tails.

    With e = e^{−|z|}, which lies in (0, 1]: σ(z) = 1/(1 + e) for z >= 0 and e/(1 + e) below, and σ'(z) = e/(1 + e)².
    The textbook's y(1 − y) is 0 from z = 17 on in float32, where σ' is still 4e-8.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.
    """

    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return σ(z) and σ'(z)."""
        e = np.exp(minus_magnitude(z))  # of −|z|, so it cannot overflow
        slope: Array = e / ((1 + e) * (1 + e))  # y(1 − y) without the subtraction
        return logistic(z, e), slope


@dataclass(frozen=True)
class SiLU(Transcendental):
    """Sigmoid linear unit (swish).

        σ(z) = z s(z), s the logistic sigmoid           (86)
        σ'(z) = s(z) + z s'(z), s' = s(1 − s)           (87)

    With e = e^{−|z|}: s is 1/(1 + e) for z >= 0 and e/(1 + e) below, s' is e/(1 + e)². So both tails keep their
    digits, where z s(1 − s) is 0 once s rounds to 1.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept; float16 is computed in float32.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.

    Source: docs/derivation.md, eq. (86)–(87); Elfwing, Uchibe & Doya 2018, "Sigmoid-weighted linear units", eq. 5.
    """

    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return z s(z), and s(z) + z s'(z)."""
        wide = widen(z)
        e = np.exp(minus_magnitude(wide))
        s = logistic(wide, e)
        # s' = e/(1 + e)² stays above 0 where s(1 − s) is already 0.
        slope: Array = s + wide * (e / ((1 + e) * (1 + e)))
        return narrow(wide * s, z.dtype), narrow(slope, z.dtype)


@dataclass(frozen=True)
class Softplus(Transcendental):
    """Softplus, a smooth rectifier.

        σ(z) = log(1 + e^{βz})/β                        (82)
        σ'(z) = 1/(1 + e^{−βz})                         (83)

    Computed as max(z, 0) + log1p(e^{−β|z|})/β, a sum of two nonnegative numbers: nothing overflows, and the left tail
    is e^{βz}/β down to the smallest positive number.

    Args:
        beta: β, positive.
        threshold: if given, σ(z) = z and σ'(z) = 1 where βz > threshold.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept; float16 is computed in float32.

    Raises:
        ValueError: for rank 0, a delta of another shape, β <= 0 or a field that is not finite.
        TypeError: for a dtype that is not floating.

    Differs from torch's Softplus: there is no threshold unless one is given. torch's default 20 is a jump of 2e-9,
    and nothing overflows here without it.

    Source: docs/derivation.md, eq. (82)–(83); Dugas et al. 2001, "Incorporating second-order functional knowledge",
    eq. 3.
    """

    beta: Number = 1.0
    threshold: Number = None

    def __post_init__(self) -> None:
        require_positive(self, "", "beta", self.beta)
        if self.threshold is not None:
            require_real(self, "", "threshold", self.threshold)

    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return log(1 + e^{βz})/β, and 1/(1 + e^{−βz})."""
        wide = widen(z)
        beta = scalar(self.beta, wide)
        scaled = beta * wide
        e = np.exp(minus_magnitude(scaled))
        # log1p, since 1 + e rounds to 1 in the left tail; both terms are nonnegative, so the sum cannot cancel.
        y, slope = np.maximum(wide, 0) + np.log1p(e) / beta, logistic(scaled, e)
        if self.threshold is not None:
            linear = scaled > scalar(self.threshold, scaled)
            y, slope = np.where(linear, wide, y), np.where(linear, np.ones_like(wide), slope)
        return narrow(y, z.dtype), narrow(slope, z.dtype)


Approximation: TypeAlias = Literal["none", "tanh"]
_APPROXIMATIONS = ("none", "tanh")
_SIGMOID = Sigmoid()
# Twice √(2/π), and the coefficient of the cube.
_TWICE, _CUBIC = 1.5957691216057308, 0.044715
# From here on Φ is 0 or 1 in every floating type, and the cube of this overflows in none.
_GELU_SATURATED = 64


@dataclass(frozen=True)
class GELU(Transcendental):
    """Gaussian error linear unit.

        σ(z) = z Φ(z)                                   (76)
        σ'(z) = Φ(z) + z φ(z)                           (77)

    Φ and φ are those of the normal distribution. Φ(z) is ½ erfc(−z/√2) and never ½ + ½ erf(z/√2), which is 0 from
    z = −6 on in float32, where z Φ(z) is −6e-9. In σ'(z) Φ and zφ have opposite signs below 0, but Φ is about φ/|z| in
    the tail: the sum keeps its digits except near its root at −0.75, where every evaluation loses them.

    With `approximate="tanh"`, Φ(z) is replaced by ½(1 + tanh s), s = √(2/π)(z + 0.044715 z³), that is by the logistic
    p = 1/(1 + e^{−2s}) (78), which does not cancel; then σ'(z) = p + z p(1 − p) 2s' (79).

    Args:
        approximate: "none" or "tanh".

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept; float16 and float32 are computed
    in float64. Objects need a method `ndtr` for Φ.

    Raises:
        ValueError: for rank 0, a delta of another shape or an unknown approximation.
        TypeError: for a dtype that is not floating.

    Differs from torch's GELU in accuracy alone: torch computes 1 + erf, which is off by 2 % at z = −8 and 0 from −9 on.

    Source: docs/derivation.md, eq. (76)–(79); Hendrycks & Gimpel 2016, "Gaussian Error Linear Units", eq. 1 and its
    approximation.
    """

    approximate: Approximation = "none"

    def __post_init__(self) -> None:
        if self.approximate not in _APPROXIMATIONS:
            expected = " or ".join(map(repr, _APPROXIMATIONS))
            raise ValueError(f"GELU: approximate: expected {expected}, got {self.approximate!r}")

    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return zΦ(z), and Φ(z) + zΦ'(z)."""
        # float32 is computed in float64: a formula of this length would lose its last digits.
        wide = at_least_float64(z)
        if self.approximate == "none":
            Φ, dΦ = normal(z)
        else:
            s, ds = _twice_s(wide)
            Φ, dΦ = _SIGMOID.with_derivative(s)
            dΦ = dΦ * ds
        y, slope = wide * Φ, Φ + wide * dΦ
        return y.astype(z.dtype, copy=False), slope.astype(z.dtype, copy=False)


def _twice_s(z: Array) -> tuple[Array, Array]:
    """Return 2s and its derivative."""
    # Without the clip, the cube of a large z overflows and 0 · ∞ makes NaN of a slope that is 0.
    clipped = np.minimum(np.maximum(z, -_GELU_SATURATED), _GELU_SATURATED)
    square = clipped * clipped
    return _TWICE * (clipped + _CUBIC * (clipped * square)), _TWICE * (1 + 3 * _CUBIC * square)
