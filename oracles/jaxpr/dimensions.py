"""Dimensions that stay symbolic while JAX traces; where the trace depends on them, the example at hand decides.

JAX's own symbolic dimensions refuse to compare where the answer depends on their values, and answer False to
``==``. Here the answer is that of the example, and the condition under which it holds is written down: the program
serves whatever dimensions meet the conditions of its trace. What is right for all dimensions JAX itself decides.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from threading import RLock
from types import SimpleNamespace
from typing import Any

import numpy as np

from oracles.jaxpr.patterns import FUNCTIONS, source_of

_FRAMEWORK = ("jax", "jaxlib", "opt_einsum")
_ORDER = ("__lt__", "__le__", "__gt__", "__ge__")
_SETS = ("jax._src.lax.control_flow.loops", "jax._src.numpy.lax_numpy")  # where sets tell whether sizes are equal
_PATCHED = RLock()


@dataclass
class Example:
    """The dimensions that decide a trace, and what it has come to depend on.

    Attributes:
        values: of the symbols.
        candid: whether JAX's own code is told what is equal, as the reference's is. JAX takes "no" to mean "not
            known to be", and then does what is right for either, or gives up.
        conditions: source over the symbols, in the order in which they were met.
        unless_empty: what else JAX asked and was told because no symbol is zero.
        asked: symbols of which JAX was not told that they are a number, the last that it asked for at the end.
    """

    values: Mapping[str, float]
    candid: bool
    conditions: dict[str, None] = field(default_factory=dict)
    unless_empty: dict[str, None] = field(default_factory=dict)
    asked: dict[tuple[str, float], None] = field(default_factory=dict)
    scope: Any = None
    _known: dict[Any, Any] = field(default_factory=dict)

    def of(self, expression: Any) -> Any:
        """Return the value of an expression of dimensions."""
        if isinstance(expression, int | np.integer):
            return expression
        terms = expression._sorted_terms
        if terms not in self._known:
            self._known[terms] = sum(n * prod(self._power(*factor) for factor in term._factors) for term, n in terms)
        return self._known[terms]

    def _power(self, factor: Any, exponent: int) -> Any:
        operation = factor.operation
        base = FUNCTIONS[operation](*map(self.of, factor.operands)) if operation else self.values[factor.var]
        return base**exponent

    def suppose(self, a: Any, relation: str, b: Any) -> None:
        """Write down a condition of the trace."""
        self.conditions[f"{source_of(a)} {relation} {source_of(b)}"] = None


@contextmanager
def decided_by(example: Example) -> Iterator[None]:
    """Within this context symbolic dimensions of the example's scope are compared by the example.

    JAX's class of dimensions is patched, and restored; one trace at a time, and other scopes are left alone.
    """
    from jax._src.export import shape_poly
    from jax._src.lax import convolution

    cls, shim = shape_poly._DimExpr, SimpleNamespace(**vars(operator))
    shim.index = lambda n: n if isinstance(n, cls) else operator.index(n)  # paddings may well be symbolic
    with _PATCHED:
        methods = _methods(cls, example)
        saved = {name: cls.__dict__.get(name) for name in methods}
        for name, method in methods.items():
            setattr(cls, name, method)
        convolution.operator = shim
        try:
            yield
        finally:
            convolution.operator = operator
            for name, method in saved.items():
                if method is None:
                    delattr(cls, name)
                else:
                    setattr(cls, name, method)


def _methods(cls: Any, example: Example) -> dict[str, Any]:
    plain = {name: getattr(cls, name) for name in ("__eq__", "__hash__", "__int__", "__pow__", *_ORDER)}

    def equals(a: Any, b: Any, frame: Any) -> bool:
        if a is b:
            return True
        if a.scope is not example.scope or not isinstance(b, int | np.integer | cls):
            return bool(plain["__eq__"](a, b))
        equal = bool(example.of(a) == example.of(b))
        if equal and plain["__eq__"](a, b):
            return True
        if not _in_framework(frame):
            example.suppose(a, "==" if equal else "!=", b)
            return equal
        told = equal and example.candid and (isinstance(b, cls) or b == 0)
        if told:
            example.suppose(a, "==", b)
        elif equal and len(symbols := a._get_vars()) == 1:
            (symbol,) = symbols
            example.asked.pop((symbol, example.values[symbol]), None)
            example.asked[symbol, example.values[symbol]] = None
        return told

    def hashed(a: Any) -> int:
        if example.candid and a.scope is example.scope and sys._getframe(1).f_globals.get("__name__") in _SETS:
            return hash(example.of(a))
        return int(plain["__hash__"](a))

    def ordered(name: str) -> Callable[[Any, Any], bool]:
        greater, strict = name in ("__gt__", "__ge__"), name in ("__lt__", "__gt__")

        def compare(a: Any, b: Any) -> bool:
            if a.scope is not example.scope or not isinstance(b, int | np.integer | cls):
                return bool(plain[name](a, b))
            holds = bool(getattr(operator, name)(example.of(a), example.of(b)))
            slack = (a - b if greater == holds else b - a) - int(strict == holds)
            if not _is_certain(slack, least=0):
                of_jax = _is_certain(slack, least=1) and _in_framework(sys._getframe(1))
                kept = example.unless_empty if of_jax else example.conditions
                kept[f"{source_of(slack)} >= 0"] = None
            return holds

        return compare

    def extreme(larger: bool) -> Callable[[Any, Any], Any]:
        def choose(a: Any, b: Any) -> Any:
            return a if (a >= b) == larger else b

        return choose

    def number(kind: Callable[[Any], Any], otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def convert(a: Any) -> Any:
            if a.scope is not example.scope or _in_framework(sys._getframe(1)):
                return otherwise(a)
            example.suppose(a, "==", example.of(a))
            return kind(example.of(a))

        return convert

    def power(a: Any, exponent: Any, modulo: Any = None) -> Any:
        if isinstance(exponent, float) and exponent != int(exponent):
            return a.__jax_array__() ** exponent
        return plain["__pow__"](a, exponent, modulo)

    return {
        "__eq__": lambda a, b: equals(a, b, sys._getframe(1)),
        "__ne__": lambda a, b: not equals(a, b, sys._getframe(1)),
        "__bool__": lambda a: not equals(a, 0, sys._getframe(1)),
        "__hash__": hashed,
        "__int__": number(int, plain["__int__"]),
        "__float__": number(float, _no_number),
        "__index__": number(int, _no_number),
        "__pow__": power,
        **dict.fromkeys(("max", "rmax"), extreme(larger=True)),
        **dict.fromkeys(("min", "rmin"), extreme(larger=False)),
        **{name: ordered(name) for name in _ORDER},
    }


def _is_certain(slack: Any, least: int) -> bool:
    """Return whether an expression, not negative in the example, never is where no symbol is below 0 or 1."""
    if isinstance(slack, int | np.integer):
        return True
    return sum(n for term, n in slack._sorted_terms if least or term.is_constant) >= 0 and all(
        term.is_constant or (n > 0 and all(factor.to_var() for factor, _ in term._factors))
        for term, n in slack._sorted_terms
    )


def _in_framework(frame: Any) -> bool:
    return _is_framework(frame.f_globals.get("__name__", ""))


@lru_cache(maxsize=4096)
def _is_framework(module: str) -> bool:
    return module.partition(".")[0] in _FRAMEWORK


def _no_number(dimension: Any) -> Any:
    raise NumberNeeded(dimension)


class NumberNeeded(TypeError):
    """JAX's own code wants the number of a symbolic dimension: its ``args`` hold that. Often it asks in vain."""


def needed(error: BaseException | None) -> frozenset[str]:
    """Return the symbols whose numbers were needed, where an exception or one behind it says so."""
    while error is not None:
        if isinstance(error, NumberNeeded):
            return frozenset(error.args[0]._get_vars())
        if isinstance(error, NotImplementedError) or "requires a constant" in str(error):
            return frozenset(re.findall(r"\bs\d+\b", str(error)))
        error = error.__cause__ if isinstance(error.__cause__, NumberNeeded) else error.__context__
    return frozenset()
