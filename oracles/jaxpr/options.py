"""A reference's options, their integers set apart: a stride is traced like a dimension, once for many values."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Integer:
    """Stands in the form of options for an integer."""


@dataclass(frozen=True)
class Options:
    """Options as a form with holes, and what fills them.

    Attributes:
        form: pairs of a name and its value, non-negative integers left out.
        sizes: those integers, plus one: JAX's symbols stand for what is positive.
    """

    form: tuple[tuple[str, Hashable], ...]
    sizes: tuple[int, ...]

    def filled(self, sizes: Iterator[Any]) -> dict[str, Any]:
        """Return the options with these sizes, which may be symbolic, in the place of their own."""
        return {name: _fill(value, sizes) for name, value in self.form}


def split(options: Mapping[str, Any]) -> Options:
    """Set the integers of options apart, also those in tuples; booleans and what is negative stay."""
    sizes: list[int] = []
    form = tuple((name, _empty(value, sizes)) for name, value in options.items())
    return Options(form, tuple(sizes))


def _empty(value: Any, sizes: list[int]) -> Any:
    if type(value) is tuple:
        return tuple(_empty(part, sizes) for part in value)
    if type(value) is not int or value < 0:
        return value
    sizes.append(value + 1)
    return _Integer()


def _fill(form: Any, sizes: Iterator[Any]) -> Any:
    if type(form) is tuple:
        return tuple(_fill(part, sizes) for part in form)
    return next(sizes) - 1 if isinstance(form, _Integer) else form
