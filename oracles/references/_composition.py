"""References of composites: the references of the layers inside, composed.

A layer inside is a link: its type's reference with its options. Links are hashable, since a reference is traced once
for each value of its options.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal, TypeAlias

from oracles.registry import Reference, reference_of
from oracles.strategies import Drawn

Framework: TypeAlias = Literal["torch", "jax"]
Link: TypeAlias = tuple[Reference, tuple[tuple[str, Hashable], ...]]


def link(layer: object) -> Link:
    """Return the reference of a layer's type, with the layer's options."""
    reference = reference_of(type(layer))
    return reference, tuple(reference.options(layer).items())


def parameters_of(layer: object, prefix: str = "") -> dict[str, Drawn]:
    """Return how to fill a layer's parameters, with the prefix before each name."""
    return {prefix + name: drawn for name, drawn in reference_of(type(layer)).parameters(layer).items()}


def own_primals(primals: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the primals of the layer at this index, under the layer's own names."""
    return {n.partition(".")[2]: p for n, p in primals.items() if n.partition(".")[0] == str(index)}


def apply(framework: Framework, layer: Link, z: Any, primals: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the outputs of a link's reference in a framework, as a tuple."""
    reference, options = layer
    y = getattr(reference, framework)(z, **primals, **dict(options))
    return y if isinstance(y, tuple) else (y,)
