"""Locations inside an object, such as ``"W"``, ``"params['W']"`` or ``"layers[0].weights"``: read, write, search."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from oracles.constants import HINT_LEVELS, REFERENCE_LEVELS
from oracles.rule import Array, InvalidInput

_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(-?\d+)\]|\[['\"]?([^\]'\"]+)['\"]?\]")
MOST_NAMES = 12  # that a message lists


Object: TypeAlias = Any  # an instance of the user's class, or what it holds


class Step(NamedTuple):
    """One step from an object to what it holds: an item of a dict or list, or an attribute."""

    is_item: bool
    key: Any

    def of(self, owner: Object) -> Object:
        """Return what the owner holds there."""
        return owner[self.key] if self.is_item else getattr(owner, self.key)

    def set(self, owner: Object, value: object) -> None:
        """Make the owner hold a value there."""
        if self.is_item:
            owner[self.key] = value
        else:
            setattr(owner, self.key, value)


class Absent(LookupError):
    """There is nothing at a location: it is misspelt, or not created yet."""


@lru_cache(maxsize=1024)
def steps(location: str) -> tuple[Step, ...]:
    """Parse a location.

    Raises:
        InvalidInput: if the text is no location.
    """
    result, end = [], 0
    while end < len(location):
        match = _STEP.match(location, end)
        if match is None:
            raise InvalidInput(
                f"location {location!r}: expected W, params['W'] or layers[0].W, for example, got {location[end:]!r}"
            )
        attribute, index, key = match.groups()
        result.append(Step(False, attribute) if attribute else Step(True, int(index) if index else key))
        end = match.end()
    if not result:
        raise InvalidInput("location '': expected W, params['W'] or layers[0].W, for example")
    return tuple(result)


def read(owner: object, location: str) -> Object:
    """Return what is at a location.

    Raises:
        Absent: if there is nothing; the message lists what there is.
    """
    value = owner
    for step in steps(location):
        try:
            value = step.of(value)
        except (AttributeError, LookupError, TypeError):
            raise Absent(f"{location}: {_contents_in_words(value)}") from None
    return value


def write(owner: object, location: str, value: object) -> None:
    """Replace what is at a location, and wherever else the object refers to it: in a list of its parameters, say.

    Raises:
        Absent: if there is nothing at the location.
        InvalidInput: if it cannot be set.
    """
    before = read(owner, location)
    *path, last = steps(location)
    direct = owner
    for step in path:
        direct = step.of(direct)
    for holder, step in [(direct, last), *_references(owner, before, set(), REFERENCE_LEVELS)]:
        try:
            step.set(holder, value)
        except (AttributeError, TypeError) as error:
            raise InvalidInput(
                f"{location}: cannot be set in {type(holder).__name__}: {error}.\n"
                f"Fix: give a function that sets it:    params={{...: lambda obj, value: obj.set_weights(value)}}"
            ) from None


def _references(owner: object, target: object, visited: set[int], levels: int) -> Iterator[tuple[object, Step]]:
    """Yield every object inside that refers to the target, and the step to it."""
    if id(owner) in visited or not levels or isinstance(owner, np.ndarray | str | bytes | type | ModuleType):
        return
    visited.add(id(owner))
    for step, value in _contents(owner):
        if value is target:
            yield owner, step
        else:
            yield from _references(value, target, visited, levels - 1)


def _contents(owner: object) -> list[tuple[Step, object]]:
    if isinstance(owner, dict):
        return [(Step(True, k), v) for k, v in owner.items()]
    if isinstance(owner, list | tuple):
        return [(Step(True, i), v) for i, v in enumerate(owner)]
    return [(Step(False, k), v) for k, v in getattr(owner, "__dict__", {}).items()]


def arrays_in(owner: object, shape: tuple[int, ...]) -> list[str]:
    """Return the locations of the arrays of a shape inside an object."""
    return list(_arrays_in(owner, shape, "", HINT_LEVELS))


def _arrays_in(value: object, shape: tuple[int, ...], location: str, levels: int) -> Iterator[str]:
    if isinstance(value, np.ndarray):
        if value.shape == shape:
            yield location
    elif levels and not isinstance(value, str | bytes | type):
        for step, inner in _contents(value):
            inside = f"{location}[{step.key!r}]" if step.is_item else f"{location}.{step.key}".lstrip(".")
            yield from _arrays_in(inner, shape, inside, levels - 1)


def _contents_in_words(owner: object) -> str:
    names = [str(step.key) for step, _ in _contents(owner)]
    has = f"it has {', '.join(names[:MOST_NAMES])}" if names else "it has nothing inside"
    return f"there is nothing in {type(owner).__name__}: {has}"


def converted(value: Array, like: object, from_numpy: Callable[[Array], Object]) -> Object:
    """Return an array in the form of what is at its location now: the framework's array, nested lists or a number."""
    if isinstance(like, list):
        return np.asarray(value).tolist()
    if isinstance(like, float | int):
        return float(np.asarray(value).reshape(()))
    return from_numpy(value)
