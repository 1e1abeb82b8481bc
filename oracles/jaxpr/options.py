"""A reference's options, their numbers set apart: a stride is traced like a dimension, an ε like an input."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Number:
    """Stands in the form of options for an integer, a float, or a tuple of floats."""

    kind: type


@dataclass(frozen=True)
class Options:
    """Options as a form with holes, and what fills them.

    Attributes:
        form: pairs of a name and its value, without its numbers.
        sizes: the integers, plus one: JAX's symbols stand for what is positive.
        floats: the floats, and the tuples of floats.
    """

    form: tuple[tuple[str, Hashable], ...]
    sizes: tuple[int, ...]
    floats: tuple[Any, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of the tuples of floats."""
        return tuple(len(value) for value in self.floats if isinstance(value, tuple))

    def filled(self, sizes: Iterator[Any], floats: Iterator[Any]) -> dict[str, Any]:
        """Return the options with these numbers, which may be symbolic or traced, in the place of their own."""
        return {name: _fill(value, sizes, floats) for name, value in self.form}


def split(options: Mapping[str, Any]) -> Options:
    """Set the numbers of options apart, also those in tuples; booleans and negative integers (axes) stay."""
    numbers: dict[type, list[Any]] = {int: [], float: []}
    form = tuple((name, _empty(value, numbers)) for name, value in options.items())
    return Options(form, tuple(n + 1 for n in numbers[int]), tuple(numbers[float]))


def _empty(value: Any, numbers: Mapping[type, list[Any]]) -> Any:
    kind = type(value)
    floats = kind is tuple and value and all(type(part) is float for part in value)
    if floats or kind is float or (kind is int and value >= 0):
        numbers[int if kind is int else float].append(value)
        return _Number(kind)
    return tuple(_empty(part, numbers) for part in value) if kind is tuple else value


def _fill(form: Any, sizes: Iterator[Any], floats: Iterator[Any]) -> Any:
    if type(form) is tuple:
        return tuple(_fill(part, sizes, floats) for part in form)
    if not isinstance(form, _Number):
        return form
    return next(sizes) - 1 if form.kind is int else next(floats)
