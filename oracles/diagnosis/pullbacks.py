"""Derivatives and pullbacks of NumPy's functions, for `oracles.diagnosis.recorded_arrays`.

A derivative is called with the result y and the operands; a pullback with the cotangent g of the result before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi
from typing import Any, TypeAlias

import numpy as np

from oracles.rule import Array, NotPerturbable

Value: TypeAlias = Any  # an argument or a result of a NumPy function: an array, a number, an axis, a list of those
Call: TypeAlias = Callable[..., Value]


class NotRecordable(NotPerturbable):
    """An operation that is not known here."""


def summed_to(g: Array, shape: tuple[int, ...]) -> Array:
    """Sum a cotangent over the axes along which its operand was broadcast."""
    extra = np.ndim(g) - len(shape)
    g = g.sum(axis=tuple(range(extra))) if extra else g
    axes = tuple(i for i, n in enumerate(shape) if n == 1 != np.shape(g)[i])
    return np.asanyarray(g.sum(axis=axes, keepdims=True) if axes else g)


# The derivatives of elementwise functions by each operand, from the result y and the operands. Those of what has steps
# are missing: the result of sign, floor and comparisons is a constant.
UNARY: Mapping[str, Call] = {
    "negative": lambda y, a: -1.0,
    "positive": lambda y, a: 1.0,
    "exp": lambda y, a: y,
    "exp2": lambda y, a: y * np.log(2.0),
    "expm1": lambda y, a: y + 1,
    "log": lambda y, a: 1 / a,
    "log2": lambda y, a: 1 / (a * np.log(2.0)),
    "log10": lambda y, a: 1 / (a * np.log(10.0)),
    "log1p": lambda y, a: 1 / (1 + a),
    "sqrt": lambda y, a: 0.5 / y,
    "cbrt": lambda y, a: y / (3 * a),
    "square": lambda y, a: 2 * a,
    "reciprocal": lambda y, a: -y * y,
    "sin": lambda y, a: np.cos(a),
    "cos": lambda y, a: -np.sin(a),
    "tan": lambda y, a: 1 + y * y,
    "sinh": lambda y, a: np.cosh(a),
    "cosh": lambda y, a: np.sinh(a),
    "tanh": lambda y, a: 1 - y * y,
    "arctan": lambda y, a: 1 / (1 + a * a),
    "arcsin": lambda y, a: 1 / np.sqrt(1 - a * a),
    "arccos": lambda y, a: -1 / np.sqrt(1 - a * a),
    "arcsinh": lambda y, a: 1 / np.sqrt(1 + a * a),
    "arctanh": lambda y, a: 1 / (1 - a * a),
    "absolute": lambda y, a: np.sign(a),
    "fabs": lambda y, a: np.sign(a),
    "expit": lambda y, a: y * (1 - y),
    "erf": lambda y, a: 2 / np.sqrt(pi) * np.exp(-a * a),
}
BINARY: Mapping[str, tuple[Call, Call]] = {
    "add": (lambda y, a, b: 1.0, lambda y, a, b: 1.0),
    "subtract": (lambda y, a, b: 1.0, lambda y, a, b: -1.0),
    "multiply": (lambda y, a, b: b, lambda y, a, b: a),
    "divide": (lambda y, a, b: 1 / b, lambda y, a, b: -y / b),
    "power": (lambda y, a, b: b * np.power(a, b - 1), lambda y, a, b: y * np.log(a)),
    "float_power": (lambda y, a, b: b * np.power(a, b - 1), lambda y, a, b: y * np.log(a)),
    "maximum": (lambda y, a, b: _share(a, b, a > b), lambda y, a, b: _share(a, b, b > a)),
    "fmax": (lambda y, a, b: _share(a, b, a > b), lambda y, a, b: _share(a, b, b > a)),
    "minimum": (lambda y, a, b: _share(a, b, a < b), lambda y, a, b: _share(a, b, b < a)),
    "fmin": (lambda y, a, b: _share(a, b, a < b), lambda y, a, b: _share(a, b, b < a)),
    "logaddexp": (lambda y, a, b: np.exp(a - y), lambda y, a, b: np.exp(b - y)),
    "hypot": (lambda y, a, b: a / y, lambda y, a, b: b / y),
    "arctan2": (lambda y, a, b: b / (a * a + b * b), lambda y, a, b: -a / (a * a + b * b)),
}


def _share(a: Array, b: Array, is_chosen: Array) -> Array:
    """Return 1 where an operand is chosen, and half of it at a tie."""
    return np.where(np.asarray(a == b), 0.5, np.asarray(is_chosen, np.float64))


STEPS = frozenset(("sign", "floor", "ceil", "rint", "trunc", "heaviside", "floor_divide", "spacing", "copysign"))


def elementwise_pull(derivative: Call, i: int) -> Call:
    """Return the pullback of the i-th operand of an elementwise function."""

    def pull(g: Array, y: Array, *operands: Array) -> Array:
        return summed_to(g * derivative(y, *operands), np.shape(operands[i]))

    return pull


def kept(reduced: Array, shape: tuple[int, ...], axis: Value) -> Array:
    """Return a reduced array with the axes that it lost, each of one entry."""
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    lost = {int(a) % len(shape) for a in axes} if shape else set()
    return np.reshape(reduced, tuple(1 if i in lost else n for i, n in enumerate(shape)))


def reduction_pull(name: str, axis: Value) -> Call | None:
    """Return the pullback of a ufunc's reduction over axes; ``None`` if it has no derivative."""

    def spread(g: Array, a: Array) -> Array:
        return np.asanyarray(kept(g, np.shape(a), axis) * np.ones(np.shape(a)))

    def pull_extremum(g: Array, y: Array, a: Array) -> Array:
        chosen = np.asarray(a == kept(y, np.shape(a), axis), np.float64)
        return np.asanyarray(spread(g, a) * chosen / chosen.sum(axis=axis, keepdims=True))

    pulls: dict[str, Call] = {
        "add": lambda g, y, a: spread(g, a),
        "maximum": pull_extremum,
        "minimum": pull_extremum,
        "multiply": lambda g, y, a: spread(g * y, a) / a,
    }
    return pulls.get(name)


def _swapped(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


def _pull_left(g: Array, y: Array, a: Array, b: Array) -> Array:
    if np.ndim(b) == 1:
        return summed_to(g[..., None] * b if np.ndim(a) > 1 else g * b, np.shape(a))
    product = np.matmul(b, g[..., None])[..., 0] if np.ndim(a) == 1 else np.matmul(g, _swapped(b))
    return summed_to(product, np.shape(a))


def _pull_right(g: Array, y: Array, a: Array, b: Array) -> Array:
    if np.ndim(b) == 1:
        return summed_to(np.matmul(_swapped(a), g[..., None])[..., 0] if np.ndim(a) > 1 else g * a, np.shape(b))
    product = a[:, None] * g[..., None, :] if np.ndim(a) == 1 else np.matmul(_swapped(a), g)
    return summed_to(product, np.shape(b))


MATRIX_PULLS = (_pull_left, _pull_right)


def einsum_pulls(left: str, output: str) -> list[Call]:
    """Return the pullback of each operand of an einsum.

    Raises:
        NotRecordable: if a label is repeated in an operand, or is in that operand alone.
    """
    labels = left.split(",")

    def pull_of(i: int) -> Call:
        others = [j for j in range(len(labels)) if j != i]
        elsewhere = set(output).union(*(labels[j] for j in others))
        if len(set(labels[i])) < len(labels[i]) or not set(labels[i]) <= elsewhere:
            raise NotRecordable(f"einsum: {left}->{output}")
        text = ",".join([output, *(labels[j] for j in others)]) + "->" + labels[i]
        return lambda g, y, *arrays: np.einsum(text, g, *(arrays[j] for j in others))

    return [pull_of(i) for i in range(len(labels))]
