"""Dimensions that stay symbolic while JAX traces; where the trace depends on them, the example at hand decides.

JAX's own symbolic dimensions refuse to compare where the answer depends on their values, and answer False to
``==``. Here the answer is that of the example, and the condition under which it holds is written down: the program
serves whatever dimensions meet the conditions of its trace.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from threading import RLock
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

Pattern: TypeAlias = "tuple[int | str, ...]"
FUNCTIONS: dict[str, Any] = {"floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b}

_FRAMEWORK = ("jax", "jaxlib", "opt_einsum", "numpy")
_PATCHED = RLock()


class Trust(IntEnum):
    """What JAX's own code is told when it asks whether dimensions are equal; the reference's is told the truth.

    JAX takes "no" to mean "not known to be", and then does what is right for either; or it gives up, and the next
    level is tried. Each "yes" that does not hold for all dimensions becomes a condition of the program.
    """

    NOTHING = 0
    EXPRESSIONS = 1
    SIZES = 2


def is_symbol(entry: int | str) -> bool:
    """Return whether an entry of a pattern is a symbol alone, and neither a number nor a multiple."""
    return isinstance(entry, str) and entry.isidentifier()


def source_of(expression: Any) -> str:
    """Return an expression of dimensions as Python source."""
    return str(expression).replace("^", "**")


@dataclass
class Example:
    """The dimensions that decide a trace, and what it has come to depend on.

    Attributes:
        values: of the symbols.
        trust: what JAX's own code is told.
        conditions: source over the symbols, in the order in which they were met.
    """

    values: Mapping[str, int]
    trust: Trust
    conditions: dict[str, None] = field(default_factory=dict)
    scope: Any = None
    _known: dict[str, Any] = field(default_factory=dict)

    def of(self, expression: Any) -> Any:
        """Return the value of an expression of dimensions."""
        if isinstance(expression, int | np.integer):
            return expression
        source = source_of(expression)
        if source not in self._known:
            self._known[source] = eval(source, {**FUNCTIONS, **self.values})
        return self._known[source]

    def suppose(self, a: Any, relation: str, b: Any) -> None:
        """Write down a condition of the trace."""
        self.conditions[f"{source_of(a)} {relation} {source_of(b)}"] = None


_MULTIPLES = (r"floordiv\(({0}), (\d+)\) == ({0})", r"({0}) == (\d+)\*({0})")


def ties(conditions: Iterable[str], values: Mapping[str, int]) -> dict[str, str]:
    """Return what symbols are by those equalities that these values meet: another symbol, or a multiple of one."""
    same: dict[str, str] = {}
    multiples: dict[tuple[str, int], str] = {}

    def root(symbol: str) -> str:
        return root(same[symbol]) if symbol in same else symbol

    def unite(a: str, b: str) -> None:
        if root(a) != root(b):
            same[root(b)] = root(a)

    met = [sides for c in conditions if len(sides := c.split(" == ")) == 2 and _equal(sides, values)]
    for a, b in met:
        if is_symbol(a) and is_symbol(b):
            unite(a, b)
    for a, b in (ordered for sides in met for ordered in (sides, sides[::-1])):
        for form in _MULTIPLES:
            if match := re.fullmatch(form.format(r"[a-z]\d+"), f"{a} == {b}"):
                unite(multiples.setdefault((root(match[1]), int(match[2])), match[3]), match[3])
    whole = {root(a): (k, root(b)) for (a, k), b in multiples.items()}
    entries = {s: root(s) for s in {*same, *whole}}
    return {s: e if e not in whole else f"{whole[e][0]}*{whole[e][1]}" for s, e in entries.items() if whole.get(e, (0, ""))[1] not in whole}


def _equal(sides: Sequence[str], values: Mapping[str, int]) -> bool:
    left, right = (eval(side, {**FUNCTIONS, **values}) for side in sides)
    return bool(left == right)


def fitting(pattern: Pattern, conditions: Sequence[str]) -> Callable[[Sequence[int]], bool]:
    """Compile the test whether dimensions fit a pattern and the conditions over its symbols."""
    names = [entry if is_symbol(entry) and pattern.index(entry) == i else f"n{i}" for i, entry in enumerate(pattern)]
    tests = [f"{n} == {entry}" for n, entry in zip(names, pattern, strict=True) if n != entry]
    tests += [f"{name} > 0" for name in names if name in pattern]
    test = f"lambda {', '.join(names)}: {' and '.join([*tests, *conditions]) or 'True'}"
    fits: Callable[..., bool] = eval(test, dict(FUNCTIONS))

    def guarded(dims: Sequence[int]) -> bool:
        try:
            return fits(*dims)
        except ZeroDivisionError:  # in an expression of dimensions that the trace knew not to be zero
            return False

    return guarded


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
        methods = _methods(cls, shape_poly.InconclusiveDimensionOperation, example)
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


def _methods(cls: Any, inconclusive: type[Exception], example: Example) -> dict[str, Any]:
    plain = {name: getattr(cls, name) for name in ("__eq__", "__int__", "__pow__", "__lt__", "__le__", "__gt__", "__ge__")}

    def equals(a: Any, b: Any, frame: Any) -> bool:
        if plain["__eq__"](a, b):
            return True
        if a.scope is not example.scope or not isinstance(b, int | np.integer | cls):
            return False
        equal = bool(example.of(a) == example.of(b))
        if not _in_framework(frame):
            example.suppose(a, "==" if equal else "!=", b)
            return equal
        sizes = not isinstance(b, cls) and b != 0
        if not equal or example.trust < (Trust.SIZES if sizes else Trust.EXPRESSIONS):
            return False
        example.suppose(a, "==", b)
        return True

    def ordered(name: str, relation: str) -> Callable[[Any, Any], bool]:
        def compare(a: Any, b: Any) -> bool:
            try:
                return bool(plain[name](a, b))
            except inconclusive:
                if a.scope is not example.scope:
                    raise
            holds = bool(getattr(operator, name)(example.of(a), example.of(b)))
            example.conditions[f"{'' if holds else 'not '}{source_of(a)} {relation} {source_of(b)}"] = None
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
        "__int__": number(int, plain["__int__"]),
        "__float__": number(float, _no_number),
        "__index__": number(int, _no_number),
        "__pow__": power,
        **dict.fromkeys(("max", "rmax"), extreme(larger=True)),
        **dict.fromkeys(("min", "rmin"), extreme(larger=False)),
        **{f"__{n}__": ordered(f"__{n}__", r) for n, r in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="))},
    }


def _in_framework(frame: Any) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in _FRAMEWORK


def _no_number(dimension: Any) -> Any:
    raise NumberNeeded(dimension)


class NumberNeeded(TypeError):
    """JAX's own code wants the number of a symbolic dimension: the symbols in it."""

    def __init__(self, dimension: Any) -> None:
        super().__init__(f"symbolic dimension {dimension} where a number is needed")
        self.symbols = frozenset(dimension._get_vars())


def needed(error: BaseException | None) -> frozenset[str]:
    """Return the symbols whose numbers were needed, where an exception or one behind it says so."""
    while error is not None:
        if isinstance(error, NumberNeeded):
            return error.symbols
        error = error.__cause__ if isinstance(error.__cause__, NumberNeeded) else error.__context__
    return frozenset()
