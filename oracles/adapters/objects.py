"""Adapter of objects that keep parameters, caches and gradients in themselves, as most hand-written networks do.

`Subject` says how one object is made, given its parameters, run and read. The call patterns below it run such objects
in the orders in which a user may: each is a `Rule`'s ``evaluate``, and must give what a fresh object gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.adapters.functions import named_cotangents
from oracles.adapters.locations import Absent, Object, arrays_in, converted, read, write
from oracles.adapters.suggestions import attributes_of, inputs_of, required_arguments, stateful_line
from oracles.backends.arrays import ArrayKind, Backend, backend_for
from oracles.backends.devices import Device, default_device, on_device
from oracles.constants import FAINT_DELTA
from oracles.notes import note
from oracles.options import did_you_mean
from oracles.outputs import delta_in_structure, taken_apart
from oracles.rule import (
    Array,
    Convention,
    Cotangents,
    Delta,
    Evaluate,
    Function,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    Structured,
    as_tuple,
    is_differentiable,
)
from oracles.self_consistency import move_point
from oracles.structure import NO_TREES, Trees, call_with_trees, flatten, mapped
from oracles.user_code import Raised, attempt

Method: TypeAlias = str | Function  # a method's name, or a function of the object
Location: TypeAlias = str | Function  # see `oracles.adapters.locations`, or a function of the object


@dataclass(frozen=True)
class Update:
    """A gradient that is read off an optimizer's step: W' = W − rate · dW, so dW = (W − W') / rate.

    Attributes:
        step: the method that updates the parameters, or a function of the object; "" if backward updates them.
        rate: the factor of the gradient in the step. A large power of two loses nothing; with a small rate, the
            rounding of the parameter, u|W|/rate, remains in the gradient, and the tolerance includes it.
    """

    step: Method
    rate: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.rate) and self.rate):
            raise InvalidInput(f"Update: rate: expected a finite number other than 0, got {self.rate!r}")


@dataclass(frozen=True)
class _ReadOffAnUpdate(Convention):
    """The error in gradients that are read off W − rate · dW: the rounding of W itself remains in them."""

    names: tuple[str, ...]
    rate: float

    def read_error(self, primals: Primals, delta: Delta, u: float) -> Mapping[str, Array]:
        return {
            n: np.asarray(2 * u * np.abs(primals[n]) / abs(self.rate), np.float64) for n in self.names if n in primals
        }


def stateful(
    make: Object,
    *,
    forward: Method = "forward",
    backward: Method = "backward",
    params: Sequence[str] | Mapping[str, Location] = (),
    grads: str | Mapping[str, Location] | Update | None = None,
    flush: Method | None = None,
    accumulates: bool | None = None,
    reusable: bool = True,
    arrays: ArrayKind = "numpy",
    device: Device = None,
    dtypes: Sequence[str] | None = None,
    name: str | None = None,
) -> Rule:
    """Make a Rule of a stateful class, over its inputs and parameters.

    Every evaluation makes a fresh object, sets its parameters, runs forward, and runs backward for each delta. Other
    call patterns must give the same: forward twice before backward, backward twice, a whole step on other data first.

    Args:
        make: makes the object: the class, a function without arguments, or an instance, which is copied.
        forward: the method's name, or a function ``f(obj, *inputs)``. The primals that are no parameters are its
            inputs, by name if it has such parameters, else in their order.
        backward: the method's name, or a function ``f(obj, delta)``.
        params: the locations of the parameters: names of attributes, or ``{primal: location}`` with locations such as
            "params['W']" and "layers[0].W", or with a function ``f(obj, array)`` that sets the parameter. Parameters
            that the first forward creates are set after it.
        grads: the locations of the gradients after backward: a pattern for each parameter ("d{}", "grads['{}']"), or
            ``{primal: location}``. The locations "return" and "return[1]" are in what backward returned; a function
            ``f(obj)`` returns the gradient; an `Update` reads it off an optimizer's step. By default, what backward
            returns is the cotangents of the inputs, or of all primals in their order, and the gradients of
            parameters that it leaves out are at "d{}".
        flush: clears gradients and caches; a method's name or ``f(obj)``.
        accumulates: whether a second backward adds to the gradients; by default it may or may not.
        reusable: whether the object may serve more than one forward and backward.
        arrays, device, dtypes: as in `oracles.manual`.
        name: what reports call the rule; the class's name by default.

    Returns:
        The Rule.

    Raises:
        InvalidInput: if ``make`` makes no objects; when evaluated, if a location does not exist or a shape differs.
    """
    locations: Mapping[str, Location] = dict(params) if isinstance(params, Mapping) else {n: n for n in params}
    subject = Subject(
        make=maker(make, forward),
        forward=forward,
        backward=backward,
        params=locations,
        grads=_gradient_locations(grads, locations),
        grads_are_guessed=grads is None,
        update=grads if isinstance(grads, Update) else None,
        flush=flush,
        accumulates=accumulates,
        backend=backend_for(arrays, device, dtypes),
        label=name or str(getattr(make, "__qualname__", type(make).__name__)),
    )
    rule = _rule(subject, make, _call_patterns(subject) if reusable else {})
    return on_device(rule, device or default_device(arrays))


def _rule(subject: Subject, make: Object, call_patterns: Mapping[str, Evaluate]) -> Rule:
    update, evaluate = subject.update, partial(fresh, subject)

    def of_leaves(trees: Trees) -> Rule:
        other = _of_leaves(subject, trees)
        return _rule(other, make, _call_patterns(other) if call_patterns else {})

    return Rule(
        evaluate,
        subject.label,
        runtime=subject.backend.runtime,
        implementation=make,
        call_patterns=call_patterns,
        convention=Convention() if update is None else _ReadOffAnUpdate(tuple(subject.params), update.rate),
        structured=Structured(evaluate, of_leaves),
    )


def _of_leaves(subject: Subject, trees: Trees) -> Subject:
    """Return the subject whose parameters are leaves of trees: each is at its path inside the tree's location."""
    roots = {root.name: root for root in trees.roots if not root.is_leaf}

    def inside(locations: Mapping[str, Location], writes: bool) -> dict[str, Location]:
        result: dict[str, Location] = {}
        for n, location in locations.items():
            if n not in roots:
                result[n] = location
                continue
            if callable(location):
                raise InvalidInput(f"{subject.label}: {n} is a tree: expected a location of it, got a function")
            for leaf in roots[n].leaves():
                path = leaf.name.removeprefix(n)
                is_place = not writes or roots[n].is_mutable
                result[leaf.name] = location + path if is_place else partial(_write_leaf, location, path)
        return result

    return replace(subject, params=inside(subject.params, True), grads=inside(subject.grads, False), trees=trees)


def _write_leaf(location: str, path: str, obj: Object, value: Object) -> None:
    """Replace an array in a tree that cannot be changed, by another tree at its location."""
    tree, leaves = flatten(read(obj, location), "")
    if path not in leaves or np.shape(leaves[path]) != np.shape(value):
        found = f"an array of shape {np.shape(leaves[path])}" if path in leaves else ", ".join(leaves)
        raise InvalidInput(f"params: {location}{path}: expected an array of shape {np.shape(value)}, got {found}")
    write(obj, location, tree.rebuild({**leaves, path: value}))


def _gradient_locations(
    grads: str | Mapping[str, Location] | Update | None, params: Mapping[str, Location]
) -> Mapping[str, Location]:
    if isinstance(grads, Update):
        return {}
    return {n: (grads or "d{}").format(n) for n in params} if grads is None or isinstance(grads, str) else grads


def maker(make: Object, forward: Method) -> Callable[[], Object]:
    """Return a function that makes a fresh object: a class or function as it is, of an instance a copy.

    Raises:
        InvalidInput: for anything else.
    """
    if not isinstance(make, type) and isinstance(forward, str) and hasattr(make, forward):
        return partial(copy.deepcopy, make)
    if not callable(make):
        raise InvalidInput(
            f"make: expected a class, an instance or a function without arguments, got {make!r:.60}.\n"
            "Fix:    oracles.stateful(lambda: Dense(3, 2), ...)"
        )
    required = required_arguments(make)
    if required:
        name = str(getattr(make, "__name__", "make"))
        arguments = ", ".join(f"{n}=..." for n in required)
        raise InvalidInput(
            f"make: {name} cannot be called without arguments: it needs {', '.join(required)}.\n"
            f"Fix:    oracles.stateful(lambda: {name}({arguments}), ...)"
        )
    function: Callable[[], Object] = make
    return function


@dataclass(frozen=True)
class Subject:
    """The arguments of `oracles.stateful`, and each single thing that is done with an object."""

    make: Callable[[], Object]
    forward: Method
    backward: Method
    params: Mapping[str, Location]
    grads: Mapping[str, Location]
    grads_are_guessed: bool  # the user named no locations of gradients: "d{}" is a guess, and a returned gradient wins
    update: Update | None
    flush: Method | None
    accumulates: bool | None
    backend: Backend
    label: str
    trees: Trees = NO_TREES

    def run(self, primals: Primals) -> tuple[Object, Output]:
        """Return a fresh object with these parameters, and its output."""
        obj = self.new(primals)
        return obj, self.call_forward(obj, primals)

    def new(self, primals: Primals) -> Object:
        """Return a fresh object with these parameters; if they do not exist yet, one forward creates them."""
        obj = self.make()
        self._require_vanished(obj, primals)
        try:
            self._set_params(obj, primals)
        except Absent:
            # Some objects make their parameters in the first forward, whose input gives their shapes.
            self.call_forward(obj, primals)
            self.clear(obj)
            self._require_vanished(obj, primals)
            try:
                self._set_params(obj, primals)
            except Absent as absent:
                raise InvalidInput(f"{self.label}: params: {absent}.\n{self._fix(obj, primals)}") from None
        return obj

    def call_forward(self, obj: Object, primals: Primals) -> Output:
        """Return the output at the inputs among the primals, as NumPy arrays."""
        leaves = {n: self.backend.from_numpy(a) for n, a in primals.items() if n not in self.params}
        inputs = self.trees.whole(tuple(leaves)).rebuilt(leaves)
        method = self._method(obj, self.forward)
        try:
            with self.backend.context():
                returned = call_with_trees(method, inputs, like=method)
                y: Output | None = self.backend.tree_to_numpy(taken_apart(returned))
        except InvalidInput as error:
            # A parameter that is misspelt, or not named, leaves one more input than forward takes.
            self._require_none([n for n in self.params if n not in primals], primals, obj)
            if attributes_of(obj).parameters and [n for n in inputs if n not in inputs_of(obj, method)]:
                problem = str(error).partition("\nFix")[0]
                raise InvalidInput(f"{self.label}: {problem}\n{self._fix(obj, primals)}") from None
            raise
        if y is None:
            raise InvalidInput(f"{self.label}: forward: expected an output, got nothing (None).\nFix:    return y")
        return y

    def pull(self, obj: Object, y: Output, delta: Delta, primals: Primals) -> Cotangents:
        """Run backward and return all cotangents: those returned, those left in the object, those that a step shows."""
        # Of a step only the change of the parameters is visible: the gradient is (old − new) / rate, in float64.
        updated = [n for n in self.params if n in primals] if self.update else []
        before = {n: np.array(primals[n], np.float64) for n in updated}
        with self.backend.context():
            given = delta_in_structure(y, self.backend.delta_from_numpy(delta))
            result = self._method(obj, self.backward)(given)
            returned = mapped(self.backend.to_numpy, result) if self.trees.roots else self.backend.tree_to_numpy(result)
            if self.update and self.update.step:
                self._method(obj, self.update.step)()
        cotangents = self._returned_cotangents(returned, primals)
        for n, location in self.grads.items():
            if n in self.params and n not in primals:
                continue  # this configuration has no such parameter
            # A gradient that backward returns is certain; the guess "d{}" may be a stale array of that name.
            if not (self.grads_are_guessed and n in cotangents):
                cotangents[n] = self._gradient(n, location, obj, returned, primals)
        for n, old in before.items():
            cotangents[n] = self._gradient_of_update(n, old, obj, primals)
        return {n: g for n, g in cotangents.items() if g is not None and is_differentiable(primals[n])}

    def clear(self, obj: Object) -> None:
        """Clear gradients and caches, if the user named the method."""
        if self.flush is not None:
            self._method(obj, self.flush)()

    def _require_vanished(self, obj: Object, primals: Primals) -> None:
        """Check that the object has none of the parameters that the point lacks: its configuration is without them."""
        missing = [n for n in self.params if n not in primals]
        self._require_none([n for n in missing if _has(obj, self.params[n])], primals, obj)

    def _require_none(self, names: Sequence[str], primals: Primals, obj: Object) -> None:
        if names:
            hint = did_you_mean(names[0], [n for n in primals if n not in self.params])
            raise InvalidInput(
                f"{self.label}: params: expected names of the primals {', '.join(primals)}, "
                f"got {', '.join(names)}{hint}\n{self._fix(obj, primals)}"
            )

    def _fix(self, obj: Object, primals: Primals) -> str:
        """Return the line that adapts the object with all its parameters, made from its attributes."""
        kind = type(obj).__name__
        return f"Fix:    {stateful_line(obj, kind if self.make is type(obj) else f'lambda: {kind}(...)', primals)}"

    def _set_params(self, obj: Object, primals: Primals) -> None:
        for n, location in self.params.items():
            if n not in primals:
                continue
            value = primals[n].copy() if self.update else primals[n]  # a step may write into the parameter itself
            if callable(location):
                location(obj, self.backend.from_numpy(value))
                continue
            current = read(obj, location)
            if current is None:
                raise Absent(f"{location}: it is None")
            # Writing an array of another shape would succeed, and change the layer.
            if np.shape(current) != value.shape:
                raise InvalidInput(
                    f"{self.label}: params: {location}: expected shape {value.shape} of the primal {n}, "
                    f"got {tuple(np.shape(current))}.\n"
                    f"Fix: draw {n} in the object's shape, or declare its layout:\n"
                    f"    oracles.declared(subject, layout={{{n!r}: 'ij->ji'}})"
                )
            write(obj, location, converted(value, current, self.backend.from_numpy))

    def _returned_cotangents(self, returned: Object, primals: Primals) -> Cotangents:
        """Return what backward returned as cotangents of the inputs, or of all primals; ``None`` claims none."""
        inputs = {n: a for n, a in primals.items() if n not in self.params}
        trees = self.trees.whole(tuple(inputs))
        located = all(n in self.grads for n, a in inputs.items() if is_differentiable(a))
        if returned is None or (located and not self.grads_are_guessed):
            return {}
        # As many results as primals are one for each, parameters included; else they belong to the inputs.
        is_tree = len(trees.leaf_names(inputs)) == 1 and bool(trees.roots)  # a list for the one input
        returned = tuple(returned) if isinstance(returned, list) and not is_tree else returned
        one_each = isinstance(returned, tuple) and len(returned) == len(primals) != len(inputs)
        if one_each or (isinstance(returned, Mapping) and not trees.roots):
            return named_cotangents(returned, primals, self.label, self.trees)
        return named_cotangents(returned, inputs, self.label, trees)

    def _gradient(self, name: str, location: Location, obj: Object, returned: Object, primals: Primals) -> Object:
        """Return a copy of the gradient at a location; ``None`` there claims no gradient."""
        if name not in primals:
            raise InvalidInput(f"{self.label}: grads: expected names of the primals {', '.join(primals)}, got {name!r}")
        try:
            if callable(location):
                gradient = location(obj)
            elif location.startswith("return"):
                gradient = read(returned, location.removeprefix("return")) if location != "return" else returned
            else:
                gradient = read(obj, location)
        except Absent as absent:
            others = [p for p in arrays_in(obj, primals[name].shape) if p not in self.params.values()]
            fix = f"\nFix: arrays of its shape are at {', '.join(others)}:\n    grads={{{name!r}: {others[0]!r}}}"
            raise InvalidInput(
                f"{self.label}: grads: the gradient of {name} at {absent}.{fix if others else ''}"
            ) from None
        if gradient is None and self.grads_are_guessed:
            self._note_of_no_gradient(name, location, obj, primals)
        # Copied, since the object may write into the same array at its next backward.
        gradient = self.backend.to_numpy(gradient)
        if isinstance(gradient, list | float | int):
            return np.array(gradient, primals[name].dtype)
        return np.array(gradient) if isinstance(gradient, np.ndarray) else gradient

    def _note_of_no_gradient(self, name: str, location: Location, obj: Object, primals: Primals) -> None:
        """Note that a gradient is None where it is looked for by default, and where it may be instead."""
        others = [p for p in arrays_in(obj, primals[name].shape) if p not in self.params.values()]
        if others:
            note(
                f"no gradient of {name}: {location} is None; an array of its shape is at {others[0]}: "
                f"grads={{{name!r}: {others[0]!r}}}"
            )

    def _gradient_of_update(self, name: str, old: Array, obj: Object, primals: Primals) -> Array:
        location, update = self.params[name], self.update
        if callable(location) or update is None:
            raise InvalidInput(
                f"{self.label}: params: expected a location of {name}, which an Update reads back, got a function"
            )
        new = np.asarray(self.backend.to_numpy(read(obj, location)), np.float64)
        return np.asarray((old - new) / update.rate).astype(primals[name].dtype)

    def _method(self, obj: Object, method: Method) -> Function:
        """Return a method by its name, or a function of the object with the object filled in."""
        if not isinstance(method, str):
            return partial(method, obj)
        bound: Function | None = getattr(obj, method, None)
        if not callable(bound):
            methods = [n for n in dir(obj) if not n.startswith("_") and callable(getattr(obj, n, None))]
            raise InvalidInput(
                f"{self.label}: {type(obj).__name__} has no method {method!r}; it has {', '.join(methods) or 'none'}.\n"
                "Fix: name it:    oracles.stateful(..., forward='fprop', backward='bprop')"
            )
        return bound


def _has(obj: Object, location: Location) -> bool:
    """Return whether an object has something at a location; a function sets what cannot be looked for."""
    if callable(location):
        return False
    try:
        return read(obj, location) is not None
    except Absent:
        return False


def _call_patterns(subject: Subject) -> dict[str, Evaluate]:
    patterns: dict[str, Evaluate] = {"forward twice, then backward": partial(forward_twice, subject)}
    if subject.update is None:  # a step changes the parameters, so nothing after it is at the same point
        patterns["backward twice"] = partial(backward_twice, subject)
        patterns["a second step on the object"] = partial(second_step, subject)
    return patterns


def fresh(subject: Subject, **primals: Array) -> tuple[Output, Pullback]:
    """Run forward and backward on a fresh object; each further pullback runs on another one."""
    unused = [subject.run(primals)]
    y = unused[0][1]

    def pullback(delta: Delta) -> Cotangents:
        obj, own = unused.pop() if unused else subject.run(primals)
        return subject.pull(obj, own, delta, primals)

    return y, pullback


def forward_twice(subject: Subject, **primals: Array) -> tuple[Output, Pullback]:
    """Run forward at another point, then here: the cache must be that of the last forward."""
    obj = subject.new(primals)
    # Other inputs: with the same ones, a stale cache would give the right gradient.
    subject.call_forward(obj, _other_inputs(subject, primals))
    subject.clear(obj)
    y = subject.call_forward(obj, primals)
    return y, lambda delta: subject.pull(obj, y, delta, primals)


def backward_twice(subject: Subject, **primals: Array) -> tuple[Output, Pullback]:
    """Run backward twice: the second gives the same, or adds it; an object may refuse it by an error, as torch does."""
    obj, y = subject.run(primals)

    def pullback(delta: Delta) -> Cotangents:
        first = _copies(subject.pull(obj, y, delta, primals))
        second = attempt(lambda: subject.pull(obj, y, delta, primals))
        if isinstance(second, Raised):
            return first
        return _without_accumulation(subject, first, second, first)

    return y, pullback


def second_step(subject: Subject, **primals: Array) -> tuple[Output, Pullback]:
    """Run a step on other data first: the gradients must be those of this step, or be added to the former ones."""
    obj = subject.new(primals)
    other = _other_inputs(subject, primals)
    y = subject.call_forward(obj, other)
    parts = tuple(np.asarray(FAINT_DELTA * np.asarray(part)).astype(np.asarray(part).dtype) for part in as_tuple(y))
    first = _copies(subject.pull(obj, y, parts if isinstance(y, tuple | list) else parts[0], other))
    subject.clear(obj)
    y = subject.call_forward(obj, primals)

    def pullback(delta: Delta) -> Cotangents:
        second = subject.pull(obj, y, delta, primals)
        if subject.flush is not None:
            return second
        return _without_accumulation(subject, first, second, fresh(subject, **primals)[1](delta))

    return y, pullback


def _other_inputs(subject: Subject, primals: Primals) -> dict[str, Array]:
    """Return other inputs with the same parameters; the same inputs if the subject cannot be run at others."""
    inputs = move_point({n: a for n, a in primals.items() if n not in subject.params})
    other = {n: inputs.get(n, a) for n, a in primals.items()}
    outside_domain = isinstance(attempt(lambda: subject.run(other)), Raised)
    return dict(primals) if outside_domain else other


def _without_accumulation(subject: Subject, first: Cotangents, second: Cotangents, expected: Cotangents) -> Cotangents:
    """Return the gradients of the second backward alone, if the object adds them to those of the first."""
    result = dict(second)
    for n in subject.grads:
        if not all(isinstance(g.get(n), np.ndarray) for g in (first, second, expected)):
            continue
        difference = np.asarray(second[n] - first[n])
        # If the user did not declare whether the object accumulates, take the nearer one to the expected gradient.
        nearer = np.linalg.norm(np.ravel(difference - expected[n])) < np.linalg.norm(np.ravel(second[n] - expected[n]))
        if subject.accumulates or (subject.accumulates is None and nearer):
            result[n] = difference
    return result


def _copies(cotangents: Cotangents) -> Cotangents:
    return {n: np.array(g) if isinstance(g, np.ndarray) else g for n, g in cotangents.items()}
