"""Object arrays of balls under NumPy's own ufuncs, so that a NumPy primal runs on enclosures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oracles.rule import Array, NotPerturbable

if TYPE_CHECKING:
    from oracles.exact.balls import Tape


class Untouchable(NotPerturbable):
    """A subject asked for the memory of balls, to hand it to compiled code; plain object arrays would not refuse."""


class Balls(np.ndarray[Any, Any]):
    """An object array of balls and numbers, under the ufuncs that mean something on balls; the others raise."""

    tape: Tape

    @property
    def ctypes(self) -> Any:
        """Refuse: compiled code would take pointers to Python objects for numbers."""
        raise Untouchable("compiled code takes no balls")

    @property
    def __array_interface__(self) -> Any:
        raise Untouchable("compiled code takes no balls")

    def __array_finalize__(self, parent: Any) -> None:
        if isinstance(parent, Balls):
            self.tape = parent.tape

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        name, arrays = ufunc.__name__, [plain(x) for x in inputs]
        if ufunc.nin == 1 or name in _BY_METHOD:  # the others are Python's operators, which numbers have too
            if method == "at":
                raise NotPerturbable(f"np.{name}.at does not run on balls")
            arrays[: ufunc.nin] = [as_balls(self.tape, x) for x in arrays[: ufunc.nin]]
        if out is not None:
            options["out"] = tuple(map(plain, out))
        result = getattr(_BY_METHOD.get(name, ufunc), method)(*arrays, **options)
        if name in ("isnan", "isinf", "isfinite", "signbit"):
            return np.asarray(result, bool)[()]
        return self._wrapped(result) if out is None else out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.nan_to_num:
            raise NotPerturbable("np.nan_to_num leaves objects as they are, infinite or not")
        return self._wrapped(super().__array_function__(function, types, args, kwargs))

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """Return a copy for floating dtypes, since the oracle chooses the precision; balls are no integers."""
        return self.copy() if np.dtype(dtype).kind in "fO" else super().astype(dtype, *args, **kwargs)

    def _wrapped(self, result: Any) -> Any:
        if isinstance(result, tuple | list):
            return type(result)(map(self._wrapped, result))
        if isinstance(result, np.ndarray) and result.dtype == object:
            result = result.view(Balls)
            result.tape = self.tape
        return result if isinstance(result, Balls) and result.dtype == object else plain(result)


def plain(x: Any) -> Any:
    """Return balls as a plain object array, and anything else as it is."""
    return x.view(np.ndarray) if isinstance(x, Balls) else x


def as_balls(tape: Tape, x: Any) -> Array:
    """Return an array, or a number, in which every entry is a ball."""
    balls = [tape.constant(entry) for entry in np.asarray(x, object).flat]
    if any(ball is NotImplemented for ball in balls):
        raise TypeError("expected numbers")
    return object_array(balls, np.shape(x))


def _is_finite(ball: Any) -> bool:
    """Return whether this is a number; a ball without bounds may become one in more precision."""
    return bool(ball.value.is_finite() or (not ball.value.is_exact() and ball.tape.decide(ball, ball)))


# Ufuncs that need balls in every place, most of them because they have no loop of their own over objects.
_BY_METHOD: dict[str, Any] = {
    "arctan2": np.arctan2,
    "logaddexp": np.frompyfunc(lambda a, b: a.logaddexp(b), 2, 1),
    "float_power": np.frompyfunc(lambda a, b: a**b, 2, 1),
    "copysign": np.frompyfunc(lambda a, b: -abs(a) if b < 0 else abs(a), 2, 1),
    "heaviside": np.frompyfunc(lambda a, b: (1.0, b, 0.0)[1 - a.sign()], 2, 1),
    "sign": np.frompyfunc(lambda a: a.sign(), 1, 1),
    "signbit": np.frompyfunc(lambda a: a < 0, 1, 1),
    "isfinite": np.frompyfunc(_is_finite, 1, 1),
    "isinf": np.frompyfunc(lambda a: not _is_finite(a) and not a.value.is_nan(), 1, 1),
    "isnan": np.frompyfunc(lambda a: not _is_finite(a) and bool(a.value.is_nan()), 1, 1),
}


def object_array(entries: list[Any], shape: tuple[int, ...]) -> Array:
    """Return the entries as an object array, whatever they are."""
    result = np.empty(len(entries), object)
    result[:] = entries
    return result.reshape(shape)
