"""Places inside an object, as ``"W"``, ``"params['W']"``, ``"layers[0].weights"``: read, written, and hinted at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from oracles.rule import Array, InvalidInput

Step: TypeAlias = tuple[bool, Any]  # (whether an item, its key or the attribute's name)

_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(-?\d+)\]|\[['\"]?([^\]'\"]+)['\"]?\]")
DEEPEST = 6  # levels of attributes, dicts and lists that are searched for an array's other places


class Absent(LookupError):
    """There is nothing at a place: not created yet, or misspelt."""


@lru_cache(maxsize=1024)
def steps(place: str) -> tuple[Step, ...]:
    """Parse a place.

    Raises:
        InvalidInput: if it is none.
    """
    found, end = [], 0
    while end < len(place):
        match = _STEP.match(place, end)
        if match is None:
            raise InvalidInput(
                f"place {place!r}: expected one like W, params['W'] or layers[0].W; lost at {place[end:]!r}"
            )
        attribute, index, key = match.groups()
        found.append((False, attribute) if attribute else (True, int(index) if index else key))
        end = match.end()
    if not found:
        raise InvalidInput("place '': expected something like W, params['W'] or layers[0].W")
    return tuple(found)


def read(owner: Any, place: str) -> Any:
    """Return what is at a place.

    Raises:
        Absent: if there is nothing; says what there is.
    """
    value = owner
    for is_item, key in steps(place):
        try:
            value = value[key] if is_item else getattr(value, key)
        except (AttributeError, LookupError, TypeError):
            raise Absent(f"{place}: {_there(value)}") from None
    return value


def write(owner: Any, place: str, value: Any) -> None:
    """Put a value at a place, and wherever else the object holds what was there: in a list of its parameters, say.

    Raises:
        Absent: if there is nothing at the place.
        InvalidInput: if it cannot be set.
    """
    before = read(owner, place)
    *path, (is_item, key) = steps(place)
    at = owner
    for through_item, name in path:
        at = at[name] if through_item else getattr(at, name)
    for holder, by_item, name in [(at, is_item, key), *_holders(owner, before, set(), DEEPEST)]:
        try:
            if by_item:
                holder[name] = value
            else:
                setattr(holder, name, value)
        except (AttributeError, TypeError) as error:
            raise InvalidInput(
                f"{place}: cannot be set in {type(holder).__name__}: {error}.\n"
                f"Fix: say how:    params={{...: lambda obj, value: obj.set_weights(value)}}"
            ) from None


def _holders(owner: Any, sought: Any, seen: set[int], depth: int) -> Iterator[tuple[Any, bool, Any]]:
    if id(owner) in seen or not depth or isinstance(owner, np.ndarray | str | bytes | type | ModuleType):
        return
    seen.add(id(owner))
    for is_item, key, value in _contents(owner):
        if value is sought:
            yield owner, is_item, key
        else:
            yield from _holders(value, sought, seen, depth - 1)


def _contents(owner: Any) -> list[tuple[bool, Any, Any]]:
    if isinstance(owner, dict):
        return [(True, k, v) for k, v in owner.items()]
    if isinstance(owner, list | tuple):
        return [(True, i, v) for i, v in enumerate(owner)]
    return [(False, k, v) for k, v in getattr(owner, "__dict__", {}).items()]


def arrays_in(owner: Any, shape: tuple[int, ...]) -> list[str]:
    """Return the places of the arrays of a shape inside an object, as a hint of what may have been meant."""
    found: list[str] = []

    def search(value: Any, place: str, depth: int) -> None:
        if np.shape(value) == shape and isinstance(value, np.ndarray):
            found.append(place)
        elif depth and not isinstance(value, np.ndarray | str | bytes | type):
            for is_item, key, inner in _contents(value):
                search(inner, f"{place}[{key!r}]" if is_item else f"{place}.{key}".lstrip("."), depth - 1)

    search(owner, "", 3)
    return found


def _there(owner: Any) -> str:
    names = [str(key) for _, key, _ in _contents(owner)]
    has = f"it has {', '.join(names[:12])}" if names else "it has nothing inside"
    return f"there is nothing in {type(owner).__name__}: {has}"


def converted(value: Any, like: Any, take: Callable[[Array], Any]) -> Any:
    """Return an array as what is at its place now: the subject's own array, nested lists, or a number."""
    if isinstance(like, list):
        return np.asarray(value).tolist()
    if isinstance(like, float | int):
        return float(np.asarray(value).reshape(()))
    return take(value)
