"""An object under test: how it is made, fed its parameters, run forwards and backwards, and read."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.adapters.functions import given, named_cotangents, taken
from oracles.adapters.locations import Absent, arrays_in, converted, read, write
from oracles.backends.arrays import Backend
from oracles.rule import Array, Cotangents, InvalidInput, Primals, is_differentiable

Method: TypeAlias = str | Callable[..., Any]
Where: TypeAlias = str | Callable[..., Any]


@dataclass(frozen=True)
class Update:
    """A gradient that shows in an optimizer's step alone: W ← W − rate · dW, so dW = (W − W') / rate.

    Attributes:
        step: the method that updates the parameters, or a function of the object; "" where backward does it.
        rate: what the gradient is multiplied by. A large power of two loses nothing: from a small rate the rounding
            of the parameter, u|W|/rate, remains in the gradient, and is allowed.
    """

    step: Method
    rate: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.rate) and self.rate):
            raise InvalidInput(f"Update: rate: expected a finite number other than 0, got {self.rate!r}")


@dataclass(frozen=True)
class Subject:
    """What `oracles.stateful` was told, and each single thing that is done with an object."""

    make: Callable[[], Any]
    forward: Method
    backward: Method
    params: Mapping[str, Where]
    grads: Mapping[str, Where]
    guessed: bool
    update: Update | None
    flush: Method | None
    accumulates: bool | None
    backend: Backend
    label: str

    def run(self, primals: Primals) -> tuple[Any, Any]:
        """Return a fresh object with these parameters, and its output."""
        obj = self.made(primals)
        return obj, self.call_forward(obj, primals)

    def made(self, primals: Primals) -> Any:
        """Return an object with these parameters; those that it creates lazily are awaited for one forward."""
        missing = [n for n in self.params if n not in primals]
        if missing:
            raise InvalidInput(
                f"{self.label}: params names {', '.join(missing)}, but the primals are {', '.join(primals)}"
            )
        obj = self.make()
        try:
            self._put(obj, primals)
        except Absent:
            self.call_forward(obj, primals)
            self.clear(obj)
            try:
                self._put(obj, primals)
            except Absent as absent:
                raise InvalidInput(f"{self.label}: params: {absent}") from None
        return obj

    def call_forward(self, obj: Any, primals: Primals) -> Any:
        """Return the output of the inputs among the primals, as NumPy arrays."""
        inputs = {n: self.backend.from_numpy(a) for n, a in primals.items() if n not in self.params}
        with self.backend.context():
            y = given(_by_name_or_in_order(self._bound(obj, self.forward), inputs), self.backend)
        if y is None:
            raise InvalidInput(f"{self.label}: forward returned nothing (None).\nFix:    return y")
        return y

    def pull(self, obj: Any, delta: Any, primals: Primals) -> Cotangents:
        """Run backward, and collect cotangents from what it returns, what it leaves behind, or what a step changes."""
        before = {n: np.array(primals[n], np.float64) for n in self.params} if self.update else {}
        with self.backend.context():
            came = given(self._bound(obj, self.backward)(taken(delta, self.backend)), self.backend)
            if self.update and self.update.step:
                self._bound(obj, self.update.step)()
        found = self._returned(came, primals)
        for n, place in self.grads.items():
            if not (self.guessed and n in found):
                found[n] = self._gradient(n, place, obj, came, primals)
        for n, old in before.items():
            found[n] = self._of_update(n, old, obj, primals)
        return {n: g for n, g in found.items() if g is not None and is_differentiable(primals[n])}

    def clear(self, obj: Any) -> None:
        """Flush the object, where it can be."""
        if self.flush is not None:
            self._bound(obj, self.flush)()

    def _put(self, obj: Any, primals: Primals) -> None:
        for n, place in self.params.items():
            value = primals[n].copy() if self.update else primals[n]
            if callable(place):
                place(obj, self.backend.from_numpy(value))
                continue
            there = read(obj, place)
            if there is None:
                raise Absent(f"{place}: it is None")
            if np.shape(there) != value.shape:
                raise InvalidInput(
                    f"{self.label}: params: {place} has shape {tuple(np.shape(there))}, the primal {n} {value.shape}.\n"
                    f"Fix: draw {n} in the object's shape, or declare how it is turned:\n"
                    f"    oracles.declared(subject, layout={{{n!r}: 'ij->ji'}})"
                )
            write(obj, place, converted(value, there, self.backend.from_numpy))

    def _returned(self, came: Any, primals: Primals) -> Cotangents:
        """Return what backward returned as cotangents of the inputs, or of all primals; nothing claims nothing."""
        inputs = {n: a for n, a in primals.items() if n not in self.params}
        kept = all(n in self.grads for n, a in inputs.items() if is_differentiable(a))
        if came is None or (kept and not self.guessed):
            return {}
        came = tuple(came) if isinstance(came, list) else came
        every = isinstance(came, tuple) and len(came) == len(primals) != len(inputs)
        return named_cotangents(came, primals if every or isinstance(came, Mapping) else inputs, self.label)

    def _gradient(self, name: str, place: Where, obj: Any, came: Any, primals: Primals) -> Any:
        """Return a copy of the gradient at a place; ``None`` there claims no gradient."""
        if name not in primals:
            raise InvalidInput(f"{self.label}: grads names {name!r}, but the primals are {', '.join(primals)}")
        try:
            if callable(place):
                found = place(obj)
            elif place.startswith("return"):
                found = read(came, place.removeprefix("return")) if place != "return" else came
            else:
                found = read(obj, place)
        except Absent as absent:
            there = [p for p in arrays_in(obj, primals[name].shape) if p not in self.params.values()]
            hint = (
                f"Fix: arrays of its shape are at {', '.join(there)}:\n    grads={{{name!r}: {there[0]!r}}}"
                if there
                else ""
            )
            raise InvalidInput(f"{self.label}: grads: the gradient of {name} at {absent}.\n{hint}".strip()) from None
        found = self.backend.to_numpy(found)
        if isinstance(found, list | float | int):
            return np.array(found, primals[name].dtype)
        return np.array(found) if isinstance(found, np.ndarray) else found

    def _of_update(self, name: str, old: Array, obj: Any, primals: Primals) -> Array:
        place, update = self.params[name], self.update
        if callable(place) or update is None:
            raise InvalidInput(f"{self.label}: params: an Update reads {name} back, so params must name its place")
        new = np.asarray(self.backend.to_numpy(read(obj, place)), np.float64)
        return np.asarray((old - new) / update.rate).astype(primals[name].dtype)

    def _bound(self, obj: Any, method: Method) -> Callable[..., Any]:
        """Return a method by name, or a function of the object with the object filled in."""
        if not isinstance(method, str):
            return partial(method, obj)
        found: Any = getattr(obj, method, None)
        if not callable(found):
            there = [n for n in dir(obj) if not n.startswith("_") and callable(getattr(obj, n, None))]
            raise InvalidInput(
                f"{self.label}: {type(obj).__name__} has no method {method!r}; it has {', '.join(there) or 'none'}.\n"
                "Fix: name it:    oracles.stateful(..., forward='fprop', backward='bprop')"
            )
        return partial(found)


def maker(make: Any, forward: Method) -> Callable[[], Any]:
    """Return what makes a fresh object: a class or function as it is, of an instance a copy.

    Raises:
        InvalidInput: for anything else.
    """
    if not isinstance(make, type) and isinstance(forward, str) and hasattr(make, forward):
        return lambda: copy.deepcopy(make)
    if not callable(make):
        raise InvalidInput(
            f"make: expected a class, an instance or a function without arguments, got {make!r:.60}.\n"
            "Fix:    oracles.stateful(lambda: Dense(3, 2), ...)"
        )
    made: Callable[[], Any] = make
    return made


def _by_name_or_in_order(f: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    """Call a method by the inputs' names where it has such parameters, else in the inputs' order."""
    try:
        inspect.signature(f).bind(**inputs)
    except (TypeError, ValueError):
        return f(*inputs.values())
    return f(**inputs)
