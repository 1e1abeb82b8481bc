"""Patterns of dimensions: what a program is written for, and the test whether an example fits it.

An entry of a pattern is a symbol, ``"s3"``, which ties all of its places; a multiple of one,
``"4*s3"``; a number, or a tuple of floats; or ``TRACED``, for floats that the program is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

Pattern: TypeAlias = "tuple[Any, ...]"
Fits: TypeAlias = Callable[[Sequence[float]], bool]
TRACED = "~"
FUNCTIONS: dict[str, Any] = {"floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b, "max": max, "min": min}


def is_symbol(entry: Any) -> TypeGuard[str]:
    """Return whether an entry of a pattern is a symbol alone."""
    return isinstance(entry, str) and entry.isidentifier()


def source_of(expression: Any) -> str:
    """Return an expression of dimensions as Python source."""
    return str(expression).replace("^", "**")


_MULTIPLES = (r"floordiv\(({0}), (\d+)\) == ({0})", r"({0}) == (\d+)\*({0})")


def ties(conditions: Iterable[str], values: Mapping[str, Any]) -> dict[str, str]:
    """Return what symbols are by those equalities that these values meet: another symbol, or a multiple of one."""
    same: dict[str, str] = {}
    multiples: dict[tuple[str, int], str] = {}

    def root(symbol: str) -> str:
        return root(same[symbol]) if symbol in same else symbol

    def unite(a: str, b: str) -> None:
        if root(a) != root(b):
            same[root(b)] = root(a)

    met = [c.split(" == ") for c in conditions if holds(c, values)]
    for a, b in met:
        if is_symbol(a) and is_symbol(b):
            unite(a, b)
    for a, b in (ordered for sides in met for ordered in (sides, sides[::-1])):
        for form in _MULTIPLES:
            if match := re.fullmatch(form.format(r"[a-z]\d+"), f"{a} == {b}"):
                unite(multiples.setdefault((root(match[1]), int(match[2])), match[3]), match[3])
    whole = {root(a): (k, root(b)) for (a, k), b in multiples.items()}
    entries = {s: root(s) for s in {*same, *whole}}
    return {
        s: e if e not in whole else f"{whole[e][0]}*{whole[e][1]}"
        for s, e in entries.items()
        if whole.get(e, (0, ""))[1] not in whole
    }


def holds(condition: str, values: Mapping[str, Any]) -> bool | None:
    """Return whether an equality holds; None where it is none, of other symbols, or divides by a zero."""
    sides = condition.split(" == ")
    if len(sides) != 2:
        return None
    try:
        left, right = (eval(side, {**FUNCTIONS, **values}) for side in sides)
    except (NameError, ZeroDivisionError):
        return None
    return bool(left == right)


def owners(pattern: Pattern) -> list[str]:
    """Return a name per entry: the symbol where it stands first, and "" elsewhere."""
    return [e if is_symbol(e) and pattern.index(e) == i else "" for i, e in enumerate(pattern)]


def fitting(pattern: Pattern, conditions: Iterable[str], least: int = 1) -> Fits:
    """Compile the test whether dimensions fit a pattern, its symbols and the conditions over them."""
    names = [name or f"n{i}" for i, name in enumerate(owners(pattern))]
    tests = [f"{n} == {entry}" for n, entry in zip(names, pattern, strict=True) if entry not in (n, TRACED)]
    tests += [f"{name} >= {least}" for name in names if name in pattern]
    test = f"lambda {', '.join(names)}: {' and '.join([*tests, *conditions]) or 'True'}"
    fits: Callable[..., bool] = eval(test, dict(FUNCTIONS))

    def guarded(dims: Sequence[float]) -> bool:
        try:
            return fits(*dims)
        except ZeroDivisionError:  # in an expression of dimensions that the trace knew not to be zero
            return False

    return guarded
