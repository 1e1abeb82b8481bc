"""Rounding imitated inside NumPy code: a subject's own forward and backward, on arrays that shake what they are fed.

Where no reference is at hand, this shows how far rounding can move the subject's own formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.rule import Array, Cotangents, Opaque, Primals, Rule, Shake, is_differentiable, outputs

# Ufuncs whose result is exact, or no number that rounds.
_EXACT_NAMES = """
negative positive absolute fabs maximum minimum fmax fmin sign signbit copysign floor ceil rint trunc
conjugate equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not logical_xor
isnan isinf isfinite heaviside ldexp frexp modf nextafter spacing bitwise_and bitwise_or bitwise_xor invert
"""
# Functions that only move, select or allocate. The others compute, many of them in C or on bare arrays, past the
# ufuncs: what they are fed is shaken once more.
_MOVING_NAMES = """
where concatenate stack vstack hstack dstack column_stack block split array_split hsplit vsplit take
take_along_axis put_along_axis pad roll flip fliplr flipud rot90 repeat tile reshape ravel transpose moveaxis
swapaxes rollaxis squeeze expand_dims broadcast_to broadcast_arrays zeros_like ones_like empty_like full_like
copy copyto put sort argsort partition argpartition argmax argmin max amax min amin nanmax nanmin ptp clip
diag diagonal diagflat tril triu atleast_1d atleast_2d atleast_3d nonzero flatnonzero argwhere unique append
insert delete choose select compress extract place searchsorted array_equal shape ndim size may_share_memory
shares_memory result_type can_cast iscomplexobj isrealobj real imag nan_to_num sliding_window_view as_strided
"""
_EXACT, _MOVING = frozenset(_EXACT_NAMES.split()), frozenset(_MOVING_NAMES.split())


class Shaken(np.ndarray[Any, Any]):
    """Floats of which every operand of every rounding operation is shaken: x (1 ± h) ± floor."""

    shake: Shake

    def __array_finalize__(self, parent: Any) -> None:
        if isinstance(parent, Shaken):
            self.shake = parent.shake

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        exact = ufunc.__name__ in _EXACT
        fed = [_plain(x) if exact else self._moved(x) for x in inputs]
        if method == "at":  # its first operand is the one that is written into
            fed[0] = _plain(inputs[0])
        options = {name: _plain(value) for name, value in options.items()}
        if out is not None:
            getattr(ufunc, method)(*fed, out=tuple(map(_plain, out)), **options)
            return out[0] if len(out) == 1 else out
        return self._wrapped(getattr(ufunc, method)(*fed, **options))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in _MOVING:
            args = tuple(map(self._everywhere, args))
        return self._wrapped(super().__array_function__(function, types, args, kwargs))

    def dot(self, other: Any, out: Any = None) -> Any:
        """Return the product, of shaken operands."""
        return np.dot(self, other, out)

    def cumsum(self, *args: Any, **kwargs: Any) -> Any:
        """Return the running sums, of shaken terms."""
        return self._wrapped(np.ndarray.cumsum(self._moved(self), *args, **kwargs))

    def _everywhere(self, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(map(self._everywhere, value))
        return shaken(self._moved(value), self.shake) if isinstance(value, Shaken) else value

    def _moved(self, x: Any) -> Any:
        if not isinstance(x, Shaken) or x.dtype.kind != "f":
            return x
        signs = self.shake.rng.integers(0, 2, x.shape, dtype=np.int8) * 2.0 - 1.0
        moved = _plain(x) * (1.0 + self.shake.h * signs)
        return moved + self.shake.floor * signs if self.shake.floor else moved

    def _wrapped(self, result: Any) -> Any:
        if isinstance(result, tuple | list):
            return type(result)(map(self._wrapped, result))
        if isinstance(result, np.ndarray | np.floating) and result.dtype.kind == "f":
            return shaken(np.asarray(_plain(result)), self.shake)
        return _plain(result)


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Shaken) else x


def shaken(array: Array, shake: Shake) -> Array:
    """Return an array that shakes what it is fed to; integers as they are."""
    if not is_differentiable(array):
        return array
    found = np.array(array, np.float64).view(Shaken)
    found.shake = shake
    return found


def own_rounding(rule: Rule) -> Rule:
    """Return a NumPy rule with a ``perturbed`` that shakes its own code, or raises `Opaque` where that does not run."""

    def perturbed(primals: Primals, delta: Any, shake: Shake) -> tuple[tuple[Array, ...], Cotangents]:
        try:
            with np.errstate(all="ignore"):
                given = {n: shaken(a, shake) for n, a in primals.items()} if shake.forward else primals
                y, pullback = rule(**given)
                seeds = tuple(shaken(np.asarray(d), shake) for d in outputs(delta))
                cotangents = dict(pullback(seeds if isinstance(delta, tuple) else seeds[0]))
            return tuple(_value(part) for part in outputs(y)), {n: _value(g) for n, g in cotangents.items()}
        except Exception as error:
            raise Opaque(f"{rule.name} does not run on shaken arrays: {error}") from error

    return Rule(rule.evaluate, rule.name, perturbed)


def _value(array: Any) -> Array:
    return np.asarray(_plain(np.asarray(array)), np.float64)
