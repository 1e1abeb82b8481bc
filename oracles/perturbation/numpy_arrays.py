"""Perturb a subject's own NumPy code, run on arrays that perturb the operands of ufuncs.

Without a reference, the perturbed code of a subject shows how far rounding can move the results of its own formulas.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.perturbation.fill_values import FillValues
from oracles.perturbation.numpy_lengths import NORMWISE, PRODUCTS, extents, length_of_function, length_of_ufunc
from oracles.perturbation.sign_pool import drawn_signs
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    NotPerturbable,
    Perturbation,
    Primals,
    RoundingErrors,
    Rule,
    as_tuple,
    is_differentiable,
)
from oracles.user_code import Raised, attempt

# Ufuncs whose result is exact, or is no floating number.
_EXACT_NAMES = """
negative positive absolute fabs maximum minimum fmax fmin sign signbit copysign floor ceil rint trunc
conjugate equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not logical_xor
isnan isinf isfinite heaviside ldexp frexp modf nextafter spacing bitwise_and bitwise_or bitwise_xor invert
"""
# Functions that only move, select or allocate. All others compute, many of them in C or on plain arrays, without the
# ufuncs, so their arguments are perturbed before the call.
_MOVING_NAMES = """
where concatenate stack vstack hstack dstack column_stack block split array_split hsplit vsplit take
take_along_axis put_along_axis pad roll flip fliplr flipud rot90 repeat tile reshape ravel transpose moveaxis
swapaxes rollaxis squeeze expand_dims broadcast_to broadcast_arrays zeros_like ones_like empty_like full_like
copy copyto put sort argsort partition argpartition argmax argmin max amax min amin nanmax nanmin ptp clip
diag diagonal diagflat fill_diagonal diag_indices_from tril_indices_from triu_indices_from matrix_transpose
putmask ix_ tril triu atleast_1d atleast_2d atleast_3d nonzero flatnonzero argwhere unique append
insert delete choose select compress extract place searchsorted array_equal shape ndim size may_share_memory
shares_memory result_type can_cast iscomplexobj isrealobj real imag nan_to_num sliding_window_view as_strided
"""
Value: TypeAlias = Any  # an argument or a result of a NumPy function: an array, a number, an axis, a tuple of those
_EXACT, _MOVING = frozenset(_EXACT_NAMES.split()), frozenset(_MOVING_NAMES.split())
# Exact ufuncs that round all the same: the modulus and the direction of a complex number.
_ROUNDS_COMPLEX = frozenset(("absolute", "sign"))


class PerturbedArray(np.ndarray[Any, Any]):
    """An array of floats; every operand of every rounding operation on it is perturbed: x (1 ± h) ± absolute.

    h is that of the operation's own reduction, see `oracles.rule.Perturbation.of_length`. A complex number moves by h
    times its modulus, in its real and in its imaginary part.
    """

    perturbation: Perturbation
    fills: FillValues  # the large constants that have met arrays of this evaluation

    def __array_finalize__(self, parent: object) -> None:
        if isinstance(parent, PerturbedArray):
            self.perturbation, self.fills = parent.perturbation, parent.fills

    def __setitem__(self, index: Value, value: Value) -> None:
        self._note_constants((value,))
        super().__setitem__(index, value)

    def _note_constants(self, values: Iterable[Value]) -> None:
        for value in values:
            if isinstance(value, tuple | list):
                self._note_constants(value)
            elif isinstance(value, float | int | np.ndarray | np.generic) and not isinstance(value, PerturbedArray):
                self.fills.add(value)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Value, out: Value = None, **options: Value
    ) -> Value:
        operands = list(map(_plain, inputs))
        # What is added to a whole array fills nothing.
        self._note_constants(x for x in inputs if np.ndim(x) or ufunc not in (np.add, np.subtract))
        if ufunc in (np.multiply, np.divide):
            for factor in inputs:
                if np.ndim(factor) == 0 and np.asarray(factor).dtype.kind in "fiu":
                    self.fills.scale(float(factor))
        if ufunc.__name__ not in _EXACT or (ufunc.__name__ in _ROUNDS_COMPLEX and np.iscomplexobj(operands[0])):
            length = length_of_ufunc(ufunc, method, operands, options)
            size = self.perturbation.of_length(length, ufunc.__name__ in PRODUCTS)
            operands = [self._perturbed(x, size) for x in inputs]
        if method == "at":  # its first operand is written into, so it must be the array itself
            operands[0] = _plain(inputs[0])
        options = {name: _plain(value) for name, value in options.items()}
        if out is not None:
            getattr(ufunc, method)(*operands, out=tuple(map(_plain, out)), **options)
            return out[0] if len(out) == 1 else out
        result = getattr(ufunc, method)(*operands, **options)
        if ufunc is np.subtract and method == "__call__" and all(isinstance(x, PerturbedArray) for x in inputs):
            result = np.where(_same_numbers(*map(_plain, inputs)), 0.0, result)
        return self._wrapped(result)

    def __array_function__(self, function: Value, types: Value, args: Value, kwargs: Value) -> Value:
        self._note_constants((*args, *kwargs.values()))
        if function.__name__ not in _MOVING:
            length = length_of_function(function, args, kwargs)
            size = self.perturbation.of_length(length, function.__name__ in PRODUCTS)
            args = tuple(self._perturbed_inside(x, size, function.__name__ in NORMWISE) for x in args)
        return self._wrapped(super().__array_function__(function, types, args, kwargs))

    def dot(self, other: Value, out: Value = None) -> Value:
        """Return the product, of perturbed operands."""
        return np.dot(self, other, out)

    def cumsum(self, axis: Value = None, *args: Value, **kwargs: Value) -> Value:
        """Return the running sums, of perturbed terms."""
        size = self.perturbation.of_length(extents(self, axis))
        return self._wrapped(np.ndarray.cumsum(self._perturbed(self, size), axis, *args, **kwargs))

    def _perturbed_inside(self, value: Value, size: RoundingErrors, normwise: bool = False) -> Value:
        """Return an array, or each of a list, as a perturbed array that goes on perturbing; a matrix maybe by norm."""
        if isinstance(value, tuple | list):
            return type(value)([self._perturbed_inside(x, size, normwise) for x in value])
        if not isinstance(value, PerturbedArray):
            return value
        moved = self._perturbed(value, size)
        if normwise and value.ndim > 1 and value.dtype.kind in "fc":
            typical = np.sqrt(np.mean(np.square(np.abs(_plain(value))), (-2, -1), keepdims=True))
            moved = moved + typical * size.own * self._signs(value.shape)
        return self._wrapped(moved)

    def _perturbed(self, x: Value, size: RoundingErrors) -> Value:
        if not isinstance(x, PerturbedArray) or x.dtype.kind not in "fc":
            return _plain(x)
        given = values = _plain(x)
        absolute = self.perturbation.absolute
        signs = self._signs(x.shape)
        if x.dtype.kind == "c":
            signs = signs + 1j * self._signs(x.shape)
            values = values + np.abs(values) * size.own * signs
        else:
            values = values * (1.0 + size.own * signs)
            if size.common and signs.size:
                values = values * (1.0 + size.common * signs.flat[0])
        return self.fills.restored(given, values + absolute * signs if absolute else values)

    def _signs(self, shape: tuple[int, ...]) -> Array:
        return drawn_signs(self.perturbation.rng, shape)

    def _wrapped(self, result: Value) -> Value:
        if isinstance(result, tuple | list):
            # eigh, svd, qr and slogdet return named tuples, which take each entry as an argument.
            return getattr(type(result), "_make", type(result))(map(self._wrapped, result))
        if isinstance(result, np.ndarray | np.inexact) and result.dtype.kind in "fc":
            array = np.asarray(_plain(result))
            wrapped = np.array(array, np.complex128 if array.dtype.kind == "c" else np.float64).view(PerturbedArray)
            wrapped.perturbation, wrapped.fills = self.perturbation, self.fills
            return wrapped
        return _plain(result)


def _same_numbers(a: Array, b: Array) -> Array | bool:
    """Return where two arrays have one number in memory: x − x is 0, as on the diagonal of λ[None] − λ[:, None]."""
    if not np.may_share_memory(a, b):
        return False
    shape = np.broadcast_shapes(a.shape, b.shape)
    one, other = (_addresses(np.broadcast_to(x, shape)) for x in (a, b))
    return np.asarray(one == other)


def _addresses(a: Array) -> Array:
    """Return where in memory each entry lies."""
    addresses = np.asarray(a.__array_interface__["data"][0])
    for extent, stride in zip(a.shape, a.strides, strict=True):
        addresses = addresses[..., None] + np.arange(extent) * stride
    return addresses


def _plain(x: Value) -> Value:
    return x.view(np.ndarray) if isinstance(x, PerturbedArray) else x


def perturbed_array(array: Array, perturbation: Perturbation, fills: FillValues | None = None) -> Array:
    """Return a floating array as a `PerturbedArray` in float64; integers as they are.

    Those of one evaluation share ``fills``.
    """
    if not is_differentiable(array):
        return array
    result = np.array(array, np.float64).view(PerturbedArray)
    result.perturbation, result.fills = perturbation, FillValues() if fills is None else fills
    return result


def perturb_own_code(rule: Rule) -> Rule:
    """Return a rule whose ``evaluate_perturbed`` runs its own NumPy code on perturbed arrays.

    It raises `NotPerturbable` if the code does not run on them.
    """
    return Rule(rule.evaluate, rule.name, partial(_evaluate_perturbed, rule))


def _evaluate_perturbed(
    rule: Rule, primals: Primals, delta: Delta, perturbation: Perturbation
) -> tuple[tuple[Array, ...], Cotangents]:
    def evaluate() -> tuple[tuple[Array, ...], Cotangents]:
        fills = FillValues()
        with np.errstate(all="ignore"):
            arrays = dict(primals)
            if perturbation.forward:
                arrays = {n: perturbed_array(a, perturbation, fills) for n, a in primals.items()}
            y, pullback = rule(**arrays)
            seeds = tuple(perturbed_array(np.asarray(d), perturbation, fills) for d in as_tuple(delta))
            cotangents = dict(pullback(seeds if isinstance(delta, tuple) else seeds[0]))
        return tuple(_value(part) for part in as_tuple(y)), {n: _value(g) for n, g in cotangents.items()}

    results = attempt(evaluate)
    if isinstance(results, Raised):  # it may refuse a subclass of np.ndarray
        raise NotPerturbable(f"{rule.name} does not run on perturbed arrays: {results.error}") from results.error
    return results


def _value(array: Value) -> Array:
    plain = _plain(np.asarray(array))
    return np.asarray(plain, np.complex128 if plain.dtype.kind == "c" else np.float64)
