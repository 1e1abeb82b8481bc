"""The calls that the layers of a hand-written network get while it is evaluated once.

While the network runs, the classes of its layers note what their forward and backward take and return. Two styles are
known: layers that keep their cache, ``forward(x)`` and ``backward(delta)``, and those that return it, as manual_bp's:
``forward(params, x) -> (y, cache)`` and ``backward(cache, delta) -> (dx, dparams)``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from oracles.constants import LAYER_LEVELS
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Function,
    Output,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
)

Object: TypeAlias = Any  # a layer, a network, or what they hold
Arguments: TypeAlias = tuple[Any, ...]

# Names of the two methods of a layer, as they are common.
METHODS = (("forward", "backward"), ("fprop", "bprop"), ("forward", "backprop"), ("__call__", "backward"))


@dataclass(eq=False)
class LayerCall:
    """One forward of a layer, and the backward that belongs to it.

    Attributes:
        layer: the layer.
        before: a copy of it, made before the forward.
        forward, backward: its two methods, as functions of the layer.
        arguments: what forward got.
        y: what it returned.
        deltas: what backward got.
        returned: what backward returned.
        returns_cache: whether forward returned (y, cache), and backward got the cache.
    """

    layer: Object
    before: Object
    forward: Function
    backward: Function
    arguments: Arguments
    y: Any = None
    deltas: Arguments = ()
    returned: Any = None
    returns_cache: bool = False

    @property
    def output(self) -> Any:
        """What forward returned, without the cache."""
        return self.y[0] if self.returns_cache else self.y

    @property
    def delta(self) -> Any:
        """The cotangent of the output that backward got."""
        return self.deltas[-1] if self.returns_cache else self.deltas[0]

    @property
    def primals(self) -> dict[str, Array]:
        """The floating arrays among forward's arguments, by the names of its parameters, or by their keys."""
        named: dict[str, Array] = {}
        for name, value in zip(_parameters(self.forward, len(self.arguments)), self.arguments, strict=True):
            items = value.items() if isinstance(value, Mapping) else [(name, value)]
            named |= {str(n): a for n, a in items if isinstance(a, np.ndarray) and is_differentiable(a)}
        return named

    def rule(self) -> Rule:
        """Return a Rule of the layer alone, over `primals`, of which a copy runs at each evaluation."""

        def evaluate(**primals: Array) -> tuple[Output, Pullback]:
            layer = copy.deepcopy(self.before)
            y = self.forward(layer, *self._arguments(primals))

            def pullback(delta: Delta) -> Cotangents:
                if self.returns_cache:
                    return self.named(self.backward(layer, y[1], delta), primals)
                return self.named(self.backward(layer, delta, *self.deltas[1:]), primals)

            return y[0] if self.returns_cache else y, pullback

        return Rule(evaluate, type(self.layer).__name__, implementation=self.layer)

    def named(self, returned: Any, primals: Primals) -> Cotangents:
        """Return what backward returned as cotangents; nothing for what is no cotangent of an argument."""
        if self.returns_cache and isinstance(returned, tuple) and isinstance(returned[-1], Mapping):
            keys = {n for a in self.arguments if isinstance(a, Mapping) for n in a}
            inputs = [n for n in primals if n not in keys]
            of_inputs = dict(zip(inputs, as_tuple(returned[0]), strict=False))
            return {n: g for n, g in {**of_inputs, **returned[-1]}.items() if n in primals and g is not None}
        if isinstance(returned, Mapping):
            return {n: g for n, g in returned.items() if n in primals}
        parts = dict(zip(primals, as_tuple(returned), strict=False))
        return {n: g for n, g in parts.items() if isinstance(g, np.ndarray)}

    def _arguments(self, primals: Primals) -> Iterator[Any]:
        for name, value in zip(_parameters(self.forward, len(self.arguments)), self.arguments, strict=True):
            if isinstance(value, Mapping):
                yield {**value, **{n: a for n, a in primals.items() if n in value}}
            else:
                yield primals.get(name, value)


def _parameters(function: Function, count: int) -> list[str]:
    """Return the names of a method's parameters after self; numbers where there are none."""
    names = [n for n, p in inspect.signature(function).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    return [names[i] if i < len(names) else f"argument_{i}" for i in range(count)]


def _is_pair_with(y: Any, cache: Any) -> bool:
    return isinstance(y, tuple) and len(y) == 2 and y[1] is cache


@dataclass
class Recording:
    """What the layers of a network did in one evaluation.

    Attributes:
        calls: their calls, in the order in which backward ended.
        pending: forwards whose backward has not come.
        roots: the objects that were called by none of the others.
    """

    calls: list[LayerCall] = field(default_factory=list)
    pending: list[LayerCall] = field(default_factory=list)
    roots: list[Object] = field(default_factory=list)
    is_ambiguous: bool = False
    _running: list[tuple[int, str]] = field(default_factory=list)

    def wrap(self, names: tuple[str, str], originals: tuple[Function, Function]) -> tuple[Function, Function]:
        """Return the two methods of a class, which note their calls."""

        def forward(layer: Object, *args: Any, **kwargs: Any) -> Any:
            if self._is_inside(layer, names[0]):  # an inherited method is called by that of the subclass
                return originals[0](layer, *args, **kwargs)
            arguments = self._in_order(originals[0], layer, args, kwargs)
            call = LayerCall(layer, copy.deepcopy(layer), *originals, copy.deepcopy(arguments))
            if not self._running:
                self.roots.append(layer)
            with self._inside(layer, names[0]):
                call.y = originals[0](layer, *args, **kwargs)
            self.pending.append(call)
            return call.y

        def backward(layer: Object, *args: Any, **kwargs: Any) -> Any:
            if self._is_inside(layer, names[1]):
                return originals[1](layer, *args, **kwargs)
            arguments = self._in_order(originals[1], layer, args, kwargs)
            call = self._call_of(layer, arguments)
            # A copy, since a backward may write into delta; the cache must be the same object.
            given = tuple(a.copy() if isinstance(a, np.ndarray) else a for a in arguments)
            with self._inside(layer, names[1]):
                returned = originals[1](layer, *args, **kwargs)
            if call is None or not given:
                self.is_ambiguous = True
                return returned
            call.deltas, call.returned = given, copy.deepcopy(returned)
            call.returns_cache = len(given) == 2 and _is_pair_with(call.y, arguments[0])
            self.calls.append(call)
            return returned

        return forward, backward

    def _call_of(self, layer: Object, args: Arguments) -> LayerCall | None:
        """Take the forward that a backward belongs to: by its cache, or the only one of its layer."""
        own = [c for c in self.pending if c.layer is layer]
        by_cache = [c for c in own if args and _is_pair_with(c.y, args[0])]
        if len(by_cache or own) != 1:
            return None
        call = (by_cache or own)[0]
        self.pending.remove(call)
        return call

    def _in_order(self, method: Function, layer: Object, args: Arguments, named: Mapping[str, Any]) -> Arguments:
        """Return the arguments of a call in the order of the parameters."""
        bound = inspect.signature(method).bind(layer, *args, **named)
        self.is_ambiguous |= bool(bound.kwargs)
        return tuple(bound.args[1:])

    def _is_inside(self, layer: Object, name: str) -> bool:
        return (id(layer), name) in self._running

    @contextmanager
    def _inside(self, layer: Object, name: str) -> Iterator[None]:
        self._running.append((id(layer), name))
        try:
            yield
        finally:
            self._running.pop()

    def location(self, call: LayerCall) -> str:
        """Return where the layer is in its network, "layers[2]"; "" if it is the network itself, or in none."""
        for root in self.roots:
            for location, value in held_by(root):
                if value is call.layer:
                    return location
        return ""

    def is_root(self, call: LayerCall) -> bool:
        """Whether nobody else called this object."""
        return any(call.layer is root for root in self.roots)


def recorded_calls(rule: Rule, primals: Primals, delta: Delta) -> Recording | None:
    """Evaluate a rule once, and return the calls of the layers inside; ``None`` if it has none, or they are unclear."""
    parts = rule.implementation if isinstance(rule.implementation, tuple) else (rule.implementation,)
    objects = [made(part) for part in parts]
    classes: dict[type, tuple[str, str]] = {}
    for o in objects:
        for value in (o, *(inner for _, inner in held_by(o))):
            names = _methods_of(type(value))
            if names is not None:
                classes.setdefault(type(value), names)
    if not classes:
        return None
    recording = Recording()
    with ExitStack() as stack:
        for owner, names in classes.items():
            stack.enter_context(_noting(owner, names, recording))
        _, pullback = rule(**primals)
        pullback(delta)
    return None if recording.is_ambiguous or not recording.calls else recording


def made(part: Object) -> Object:
    """Return an instance of what a rule was made from: a class or a function without arguments makes one."""
    if isinstance(part, type) or (inspect.isroutine(part) and not inspect.signature(part).parameters):
        return part()
    return part


def _methods_of(owner: type) -> tuple[str, str] | None:
    found = (n for n in METHODS if all(inspect.isfunction(inspect.getattr_static(owner, m, None)) for m in n))
    return next(found, None)


@contextmanager
def _noting(owner: type, names: tuple[str, str], recording: Recording) -> Iterator[None]:
    """Replace two methods of a class while the block runs."""
    own: list[Function | None] = [vars(owner).get(n) for n in names]
    originals: tuple[Function, Function] = getattr(owner, names[0]), getattr(owner, names[1])
    for name, method in zip(names, recording.wrap(names, originals), strict=True):
        setattr(owner, name, method)
    try:
        yield
    finally:
        for name, before in zip(names, own, strict=True):
            if before is None:
                delattr(owner, name)  # it is inherited
            else:
                setattr(owner, name, before)


def held_by(owner: Object, location: str = "", levels: int = LAYER_LEVELS) -> Iterator[tuple[str, Object]]:
    """Yield the objects with attributes that an object holds, with their locations, the outer ones first."""
    if isinstance(owner, dict):
        items = [(f"{location}[{k!r}]", v) for k, v in owner.items()]
    elif isinstance(owner, list | tuple):
        items = [(f"{location}[{i}]", v) for i, v in enumerate(owner)]
    else:
        items = [(f"{location}.{k}".lstrip("."), v) for k, v in getattr(owner, "__dict__", {}).items()]
    for inner, value in items:
        if hasattr(value, "__dict__") and not isinstance(value, type | np.ndarray) and not inspect.isroutine(value):
            yield inner, value
            if levels:
                yield from held_by(value, inner, levels - 1)
        elif levels and isinstance(value, dict | list | tuple):
            yield from held_by(value, inner, levels - 1)
