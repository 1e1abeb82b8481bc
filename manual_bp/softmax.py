"""Softmax and its logarithm along an axis, and the exponentials of rows from which losses compute without cancellation.

With m the index of the largest entry of a row, e_k = e^{y_k − y_m} and r = Σ_{k≠m} e_k: −log a_k = log1p(r) − (y_k −
y_m) and 1 − a_m = r/(1 + r), however close a_m is to 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ._blocks import array_of, in_blocks, rows_along
from ._precision import narrow, ones, row_starts, widen
from ._validation import NO_NAMES, require_axis, require_integer, require_names, require_row_axis, require_shape
from .protocol import Array, Cache, Number, Params


@dataclass(frozen=True)
class AlongAxis(ABC):
    """Base of the activations that act on all entries along one axis; a subclass states them for rows (N, n).

    Args:
        axis: the axis along which the rows lie.

    Shapes: z, y, delta of one shape, with 1 or more entries along the axis, and any number elsewhere.
    Dtypes: floating or object, kept; float16 is computed in float32.

    Raises:
        ValueError: for a shape without such an axis or a delta of another shape.
        TypeError: for a dtype that is not floating or an axis that is not an integer.
    """

    axis: int = -1

    preserves_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integer(self, "", "axis", self.axis)

    @abstractmethod
    def of_rows(self, z: Array) -> tuple[Array, Cache]:
        """Return y of rows, and the cache that `back_to_rows` and `jacobian_of_rows` need."""

    @abstractmethod
    def back_to_rows(self, cache: Cache, delta: Array) -> Array:
        """Return ∂L/∂z of rows."""

    @abstractmethod
    def jacobian_of_rows(self, y: Array, cache: Cache) -> Array:
        """Return ∂y_i/∂z_j of rows, (N, n, n)."""

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: the layer has no parameters."""
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return y."""
        require_axis(self, "forward", "z", z, self.axis)
        require_names(self, "forward", "params", params, NO_NAMES)
        rows, inner = self.of_rows(widen(rows_along(z, self.axis)))
        y = array_of(narrow(rows, z.dtype), z.shape, self.axis)
        return y, (y, inner)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return ∂L/∂z."""
        y, inner = cache
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        dz = self.back_to_rows(inner, widen(rows_along(delta, self.axis)))
        return array_of(narrow(dz, y.dtype), y.shape, self.axis), {}

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return ∂y_i/∂z_j, shape (N, n, n), of the columns of rows."""
        require_row_axis(self, "jacobian", "z", z, self.axis)
        require_names(self, "jacobian", "params", params, NO_NAMES)
        result: Array = narrow(self.jacobian_of_rows(*self.of_rows(widen(z))), z.dtype)
        return result


@dataclass(frozen=True)
class Softmax(AlongAxis):
    """Softmax along an axis.

        a_i = e^{z_i} / Σ_k e^{z_k}                     (22)
        ∂a_i/∂z_j = a_i(1[i=j] − a_j)                   (24)

    The rows of that Jacobian sum to 0, so any number may be subtracted from a row of delta. Subtract δ_m, the entry at
    the row's largest a_m: with d = δ − δ_m, dz = a(d − Σ d a) has no term with a_m in its sum. The textbook's δ_m − Σ δ
    a is a difference of two numbers near δ_m once a_m → 1, and loses all digits.

    Args:
        axis: the axis along which the a sum to 1.

    Shapes: z, y, delta of one shape, with 1 or more entries along the axis, and any number elsewhere.
    Dtypes: floating or object, kept; float16 is computed in float32.

    Raises:
        ValueError: for a shape without such an axis or a delta of another shape.
        TypeError: for a dtype that is not floating or an axis that is not an integer.

    Source: docs/derivation.md, eq. (22), (24).
    """

    def of_rows(self, z: Array) -> tuple[Array, tuple[Array, Array]]:
        """Return a, which sums to 1 along each row, and with it the columns of the largest entries."""
        a, top = np.empty_like(z), np.empty(len(z), np.intp)
        in_blocks(_write_softmax, z, a, top)
        return a, (a, top)

    def back_to_rows(self, cache: tuple[Array, Array], delta: Array) -> Array:
        """Return dz_i = a_i(d_i − Σ_j d_j a_j), d = δ − δ_m."""
        dz = np.empty_like(delta)
        in_blocks(_write_softmax_gradient, *cache, delta, dz)
        return dz

    def jacobian_of_rows(self, y: Array, cache: tuple[Array, Array]) -> Array:
        """Return (24), a_i(1[i=j] − a_j)."""
        result: Array = y[:, :, None] * (np.eye(y.shape[1], dtype=y.dtype) - y[:, None, :])
        return result


def _flat(rows: Array, columns: Array) -> Array:
    """Return the flat index of a column of each row, since take and put are fast."""
    return row_starts(*rows.shape) + columns


def _write_softmax(z: Array, a: Array, top: Array) -> None:
    """Write a, and the columns of the largest entries."""
    z.argmax(axis=1, out=top)
    # The largest exponent is 0: no exponential overflows, and the sum is at least 1.
    np.subtract(z, z.take(_flat(z, top))[:, None], out=a)
    np.exp(a, out=a)
    a /= a.sum(axis=1, keepdims=True)


def _write_softmax_gradient(a: Array, top: Array, delta: Array, dz: Array) -> None:
    """Write dz_i = a_i(d_i − Σ_j d_j a_j), d = δ − δ_m."""
    np.subtract(delta, delta.take(_flat(delta, top))[:, None], out=dz)
    dz -= np.vecdot(dz, a)[:, None]
    dz *= a


@dataclass(frozen=True)
class LogSoftmax(AlongAxis):
    """Logarithm of softmax along an axis.

        y_i = z_i − log Σ_k e^{z_k}                     (84)
        dz = δ − a Σ_k δ_k, a = e^y                     (85)

    Computed as (z_i − z_m) − log1p(Σ_{k≠m} e^{z_k − z_m}), a sum of two numbers of one sign, so log a_m keeps its
    digits when a_m → 1. So does dz_m = δ_m(1 − a_m) − a_m Σ_{k≠m} δ_k, where 1 − a_m is computed from the other a_k.

    Args:
        axis: the axis along which the e^y sum to 1.

    Shapes: z, y, delta of one shape, with 1 or more entries along the axis, and any number elsewhere.
    Dtypes: floating or object, kept; float16 is computed in float32.

    Raises:
        ValueError: for a shape without such an axis or a delta of another shape.
        TypeError: for a dtype that is not floating or an axis that is not an integer.

    Source: docs/derivation.md, eq. (84)–(85).
    """

    def of_rows(self, z: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        """Return log a, and e, r and the columns of the largest entries."""
        y, e, rest, top = np.empty_like(z), np.empty_like(z), np.empty_like(z, shape=len(z)), np.empty(len(z), np.intp)
        in_blocks(_write_log_softmax, z, y, e, rest, top)
        return y, (e, rest, top)

    def back_to_rows(self, cache: tuple[Array, Array, Array], delta: Array) -> Array:
        """Return δ − a Σ δ."""
        dz = np.empty_like(delta)
        in_blocks(_write_log_softmax_gradient, *cache, delta, dz)
        return dz

    def jacobian_of_rows(self, y: Array, cache: tuple[Array, Array, Array]) -> Array:
        """Return ∂y_i/∂z_j = 1[i=j] − a_j."""
        a = np.exp(y)
        result: Array = np.eye(a.shape[1], dtype=a.dtype) - a[:, None, :]
        return result


def _write_log_softmax(z: Array, y: Array, e: Array, rest: Array, top: Array) -> None:
    """Write log a, e, r and the columns of the largest entries."""
    z.argmax(axis=1, out=top)
    flat = _flat(z, top)
    np.subtract(z, z.take(flat)[:, None], out=y)
    np.exp(y, out=e)
    e.put(flat, 0)
    e.dot(ones(e.shape[1], e.dtype), out=rest)
    y -= np.log1p(rest)[:, None]


def _write_log_softmax_gradient(e: Array, rest: Array, top: Array, delta: Array, dz: Array) -> None:
    """Write δ − a Σ δ."""
    _write_weights_gradient(e, rest, _flat(e, top), delta, dz)
    np.negative(dz, out=dz)


class Exponentials(NamedTuple):
    """Of each row: y − y_m, e with 0 for e_m, r, and the flat indices at which the row and y_m are in y."""

    shifted: Array
    e: Array
    rest: Array
    starts: Array
    top: Array


def exponentials(y: Array, temperature: Number = None) -> Exponentials:
    """Return the exponentials of the rows of (y − y_m)/temperature."""
    starts = row_starts(*y.shape)  # flat indices, since take and put are fast
    top = starts + y.argmax(axis=1)
    shifted = y - y.take(top)[:, None]
    if temperature is not None:
        shifted /= temperature
    e = np.exp(shifted)
    e.put(top, 0)  # left out of the sum r, so that 1 − a_m = r/(1 + r) keeps its digits when a_m → 1
    return Exponentials(shifted, e, e.dot(ones(e.shape[1], e.dtype)), starts, top)


def weights_gradient(exp: Exponentials, weights: Array) -> Array:
    """Return a Σ w − w."""
    gradient = np.empty_like(exp.e)
    _write_weights_gradient(exp.e, exp.rest, exp.top, weights, gradient)
    return gradient


def _write_weights_gradient(e: Array, rest: Array, top: Array, weights: Array, gradient: Array) -> None:
    """Write a Σ w − w, for the row's largest entry by sums without it; `top` is its flat index."""
    weight_of_top = weights.take(top)
    np.copyto(gradient, weights)
    gradient.put(top, 0)
    sum_of_others = gradient.sum(axis=1)
    # For the largest entry, a_m Σ w − w_m = (Σ_{k≠m} w_k − w_m r)/(1 + r), which does not subtract w_m from a_m w_m.
    norm = 1 + rest
    np.multiply(e, ((sum_of_others + weight_of_top) / norm)[:, None], out=gradient)
    gradient -= weights
    gradient.put(top, (sum_of_others - weight_of_top * rest) / norm)


def classes_gradient(exp: Exponentials, classes: Array) -> Array:
    """Return a − 1[i = class], −r/(1 + r) if the class is the row's largest entry; classes as flat indices."""
    _, e, rest, _, top = exp
    norm = 1 + rest
    gradient: Array = e / norm[:, None]
    gradient.put(top, 1 / norm)
    top_gradient = -rest / norm  # a_m − 1 without the subtraction
    gradient.put(classes, np.where(classes == top, top_gradient, gradient.take(classes) - 1))
    return gradient
