"""Layouts: ``"NCHW->NHWC"`` says how the reference's axes stand in the subject's array; 1 is an axis of length one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any, TypeAlias

import numpy as np

from oracles.rule import Array, InvalidInput

# How an array is turned: a string, or a pair of functions, from the reference's layout to the subject's and back.
Layout: TypeAlias = str | tuple[Callable[[Array], Array], Callable[[Array], Array]]

REST = "..."
MOST_AXES = 4  # whose permutations are tried, for a declaration that does not fit


@dataclass(frozen=True)
class Turn:
    """How an array is turned from the reference's layout to the subject's, and back."""

    to: Callable[[Array], Array]
    back: Callable[[Array], Array]


def turn(name: str, layout: Any) -> Turn:
    """Return what a layout means.

    Raises:
        InvalidInput: if it is neither a pair of functions nor two sides of the same letters; says what was expected.
    """
    if isinstance(layout, tuple) and len(layout) == 2 and all(map(callable, layout)):
        return Turn(*layout)
    if not isinstance(layout, str) or layout.count("->") != 1:
        raise InvalidInput(
            f"layout of {name}: expected two sides of the same letters, as 'ij->ji', or two functions, got {layout!r}"
        )
    ours, theirs = (_axes(side.strip()) for side in layout.split("->"))
    letters = [a for a in ours if a != "1"]
    if sorted(letters) != sorted(a for a in theirs if a != "1") or len(set(letters)) != len(letters):
        raise InvalidInput(
            f"layout of {name}: expected each letter once on either side, as 'NCHW->NHWC', got {layout!r}"
        )
    return Turn(lambda a: _turned(a, ours, theirs, name), lambda a: _turned(a, theirs, ours, name))


def _axes(side: str) -> tuple[str, ...]:
    """Split one side into its letters, 1s and "..."."""
    before, dots, after = side.partition(REST)
    return (*before, *([REST] if dots else []), *after)


def _turned(array: Array, given: tuple[str, ...], wanted: tuple[str, ...], name: str) -> Array:
    array = np.asanyarray(array)
    spread = array.ndim - len([a for a in given if a != REST])
    if spread < 0 or (spread and REST not in given):
        raise ValueError(f"layout of {name}: expected axes {''.join(given)}, got an array of shape {array.shape}")
    labels = [label for a in given for label in ([f"{REST}{i}" for i in range(spread)] if a == REST else [a])]
    if any(a == "1" and n != 1 for a, n in zip(labels, array.shape, strict=True)):
        raise ValueError(f"layout of {name}: expected axes of length one at 1 in {''.join(given)}, got {array.shape}")
    kept = [i for i, a in enumerate(labels) if a != "1"]
    extents = {labels[i]: array.shape[i] for i in kept}
    places = {label: place for place, label in enumerate(extents)}
    order = [label for a in wanted for label in ([f"{REST}{i}" for i in range(spread)] if a == REST else [a])]
    flat = array.reshape(tuple(extents.values()))
    turned = flat.transpose([places[label] for label in order if label != "1"])
    return turned.reshape([extents.get(label, 1) for label in order])


def others(layout: Any) -> Iterator[str]:
    """Yield the other layouts of the same axes, the plain one first."""
    if not isinstance(layout, str) or REST in layout:
        return
    ours, theirs = (side.strip() for side in layout.split("->"))
    letters = [a for a in theirs if a != "1"]
    if len(letters) > MOST_AXES:
        return
    plain = [a for a in ours if a != "1"]
    for order in dict.fromkeys([tuple(plain), *permutations(letters)]):
        fill = iter(order)
        other = "".join(a if a == "1" else next(fill) for a in theirs)
        if other != theirs:
            yield f"{ours}->{other}"
