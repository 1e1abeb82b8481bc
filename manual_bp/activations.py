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

from ._blocks import pointwise
from ._normal import normal
from ._precision import at_least_float64, largest_exponent, log1p, narrow, scalar, widen, zero
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


class ValueAndSlope(Elementwise):
    """Base of the activations whose σ and σ' share what costs most, such as an exponential.

    `forward` computes both. The cache is σ'(z), which takes the memory that z would take: of float16 and bfloat16 it is
    float32, since it is a factor. A subclass states the pair.
    """

    @abstractmethod
    def write(self, z: Array, y: Array, slope: Array) -> None:
        """Write σ(z) into y, and σ'(z) into slope: arrays like z, which is not of half precision."""

    def value(self, z: Array) -> Array:
        """Return σ(z), a new array."""
        y: Array = narrow(pointwise(self.write, widen(z))[0], z.dtype)
        return y

    def derivative(self, z: Array) -> Array:
        """Return σ'(z), a new array."""
        slope: Array = narrow(pointwise(self.write, widen(z))[1], z.dtype)
        return slope

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return σ(z); z has any rank from 1 up."""
        self._check_inputs(params, z)
        y, slope = pointwise(self.write, widen(z))
        return narrow(y, z.dtype), (slope, zero(z.dtype))

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return delta · σ'(z)."""
        slope, like = cache
        require_shape(self, "backward", "delta", delta, slope.shape, like, "y")
        return narrow(delta * slope, like.dtype), {}


def decaying(z: Array) -> Array:
    """Return e^{−|z|}, which lies in [0, 1] and cannot overflow."""
    e: Array = -z
    # −|z|, at 0 −z, by a comparison, which every number type has.
    np.minimum(e, z, out=e)
    return np.exp(e, out=e)


def logistic(z: Array, e: Array, above: Array, y: Array) -> None:
    """Write 1/(1 + e^{−z}) into y, and overwrite e by e/(1 + e), given e = e^{−|z|} and above = 1 + e.

    Where z >= 0 it is 1 − e/(1 + e), which keeps its digits, since e/(1 + e) is at most ½; elsewhere it is e/(1 + e).
    """
    e /= above
    if z.dtype == OBJECT:  # the sign of a ball around a tiny number is unknown
        y[...] = np.where(z >= 0, 1 - e, e)
        return
    # |1 − q| or |0 − q|: np.where takes a branch for each entry, mispredicted half the time.
    np.greater_equal(z, zero(z.dtype), out=y)
    y -= e
    np.abs(y, out=y)


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
class LeakyReLU(ValueAndSlope):
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

    def write(self, z: Array, y: Array, slope: Array) -> None:
        """Write 1 where z > 0 and the slope elsewhere, and z times that."""
        a = scalar(self.slope, z)
        a = a if z.dtype == OBJECT else z.dtype.type(a)
        if 0 <= a <= 1:
            # (1 − a) + a rounds to 1: 1 − a is off by at most ε/4, halfway from 1 to the next number below, and a tie
            # rounds to 1.
            np.greater(z, zero(z.dtype), out=slope)
            slope *= 1 - a
            slope += a
        else:
            _rectify(z, a, slope)
        np.multiply(z, slope, out=y)


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
    """Return 1 where z > 0 and slope elsewhere."""
    result = np.empty_like(z)
    _rectify(z, slope, result)
    return result


def _rectify(z: Array, slope: Number, result: Array) -> None:
    """Write 1 where z > 0 and slope elsewhere, without np.where, which takes a branch for each entry."""
    above = (z > zero(z.dtype)).astype(z.dtype)
    np.subtract(1, above, out=result)
    result *= slope
    result += above


# Where NumPy's expm1 takes less time than its tanh and an exponential.
_BY_EXPM1 = frozenset(map(np.dtype, (np.float64, np.longdouble)))


@dataclass(frozen=True)
class Tanh(ValueAndSlope):
    """Hyperbolic tangent: σ(z) = tanh z, σ'(z) = 1/cosh² z.

    The usual 1 − y² cancels: it is 0 once y rounds to 1 (|z| > 9 in float32), and before that it has lost digits that
    1/cosh² keeps down to the smallest positive number. It is 4e/(1 + e)² with e = e^{−2|z|}. In float64, with
    v = e^{|z|} − 1 and q = 1/(1 + v) = e^{−|z|}: sinh |z| = ½v(1 + q) and cosh z = ½(1 + v + q), where nothing cancels.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.
    """

    def write(self, z: Array, y: Array, slope: Array) -> None:
        """Write tanh z and 1/cosh² z."""
        if z.dtype in _BY_EXPM1:
            _write_hyperbolic(z, y, slope)
            return
        np.tanh(z, out=y)
        with np.errstate(over="ignore"):  # twice the largest numbers, of which e is 0
            e = decaying(2 * z)
        above = 1 + e
        above *= above
        e *= 4
        np.divide(e, above, out=slope)


def _write_hyperbolic(z: Array, y: Array, slope: Array) -> None:
    """Write tanh z = sinh z/cosh z and 1/cosh² z, both from e^{|z|} − 1."""
    v = np.abs(z)
    np.minimum(v, largest_exponent(z.dtype), out=v)  # there 1/cosh² is 0, and nothing overflows
    np.expm1(v, out=v)
    cosh = 1 + v  # twice, as is sinh
    q = 1 / cosh
    cosh += q
    np.divide(2, cosh, out=slope)
    slope *= slope
    q += 1
    v *= q
    v /= cosh
    np.copysign(v, z, out=y)


@dataclass(frozen=True)
class Sigmoid(ValueAndSlope):
    """Logistic sigmoid: σ(z) = 1/(1 + e^{−z}), without overflow and accurate in both tails.

    With e = e^{−|z|}, which lies in (0, 1]: σ(z) = 1 − e/(1 + e) for z >= 0, and e/(1 + e) below; σ'(z) = e/(1 + e)².
    The textbook's y(1 − y) is 0 from z = 17 on in float32, where σ' is still 4e-8.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.
    """

    def write(self, z: Array, y: Array, slope: Array) -> None:
        """Write σ(z) and σ'(z)."""
        e = decaying(z)
        above = 1 + e
        logistic(z, e, above, y)
        np.divide(e, above, out=slope)  # y(1 − y) without the subtraction


@dataclass(frozen=True)
class SiLU(ValueAndSlope):
    """Sigmoid linear unit (swish).

        σ(z) = z s(z), s the logistic sigmoid           (86)
        σ'(z) = s(z) + z s'(z), s' = s(1 − s)           (87)

    With e = e^{−|z|}: s is 1 − e/(1 + e) for z >= 0 and e/(1 + e) below, s' is e/(1 + e)². So both tails keep their
    digits, where z s(1 − s) is 0 once s rounds to 1.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept; float16 is computed in float32.

    Raises:
        ValueError: for rank 0 or a delta of another shape.
        TypeError: for a dtype that is not floating.

    Source: docs/derivation.md, eq. (86)–(87); Elfwing, Uchibe & Doya 2018, "Sigmoid-weighted linear units", eq. 5.
    """

    def write(self, z: Array, y: Array, slope: Array) -> None:
        """Write z s(z), and s(z) + z s'(z)."""
        wide = widen(z)
        e = decaying(wide)
        above = 1 + e
        s = np.empty_like(e)
        logistic(wide, e, above, s)
        np.multiply(wide, s, out=y)
        e /= above  # s', which stays above 0 where s(1 − s) is already 0
        e *= wide
        np.add(s, e, out=slope)


@dataclass(frozen=True)
class Softplus(ValueAndSlope):
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

    def write(self, z: Array, y: Array, slope: Array) -> None:
        """Write log(1 + e^{βz})/β, and 1/(1 + e^{−βz})."""
        wide = widen(z)
        beta = scalar(self.beta, wide)
        scaled = beta * wide
        e = decaying(scaled)
        above = 1 + e
        # log1p, since 1 + e rounds to 1 in the left tail; both terms are nonnegative, so the sum cannot cancel.
        log = log1p(e, above)
        log /= beta
        np.add(np.maximum(wide, 0), log, out=y)
        logistic(scaled, e, above, slope)
        if self.threshold is not None:
            linear = scaled > scalar(self.threshold, scaled)
            np.copyto(y, z, where=linear)
            np.copyto(slope, 1, where=linear)


Approximation: TypeAlias = Literal["none", "tanh"]
_APPROXIMATIONS = ("none", "tanh")
_SIGMOID = Sigmoid()
# Twice √(2/π), and the coefficient of the cube.
_TWICE, _CUBIC = 1.5957691216057308, 0.044715
# From here on Φ is 0 or 1 in every floating type, and the cube of this overflows in none.
_GELU_SATURATED = 64


@dataclass(frozen=True)
class GELU(ValueAndSlope):
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

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept; float16 is computed in float32,
    and with the approximation both in float64. Objects need a method `ndtr` for Φ.

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

    def write(self, z: Array, y: Array, slope: Array) -> None:
        """Write zΦ(z), and Φ(z) + zΦ'(z)."""
        if self.approximate == "none":
            wide = widen(z)
            Φ, dΦ = normal(wide)
        else:
            wide = at_least_float64(z)  # e^{2s} multiplies the roundings of 2s by 2s
            s, ds = _twice_s(wide)
            Φ, dΦ = pointwise(_SIGMOID.write, s)
            dΦ *= ds
        np.multiply(wide, Φ, out=y)
        dΦ *= wide
        np.add(Φ, dΦ, out=slope)


def _twice_s(z: Array) -> tuple[Array, Array]:
    """Return 2s and its derivative."""
    # Without the clip, the cube of a large z overflows and 0 · ∞ makes NaN of a slope that is 0.
    clipped = np.minimum(np.maximum(z, -_GELU_SATURATED), _GELU_SATURATED)
    square = clipped * clipped
    return _TWICE * (clipped + _CUBIC * (clipped * square)), _TWICE * (1 + 3 * _CUBIC * square)
