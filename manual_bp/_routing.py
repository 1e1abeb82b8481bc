"""Routing in composites: parameters and side inputs find their layer by their prefix, as "2.W" is layer 2's W."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from .protocol import Array, Layer, Params, inputs_of, outputs_of

# For each layer, its parameters' own names, each with the name in the composite: (("W", "0.W"), ("b", "0.b")).
Routes: TypeAlias = tuple[tuple[tuple[str, str], ...], ...]


class Port(NamedTuple):
    """A layer's slices of its composite's inputs and outputs, whose index 0 is the main stream."""

    inputs: slice
    outputs: slice


def routes_of(owner: object, method: str, params: Params, depth: int) -> Routes:
    """Return which parameters belong to which of the `depth` layers; refuse one that belongs to none."""
    label = type(owner).__name__
    if type(params) is not dict and not isinstance(params, dict):
        raise TypeError(f"{label}.{method}: params: expected a dict of arrays, got {type(params).__name__}")
    return _route(label, depth, tuple(params))


def own_params(params: Params, route: tuple[tuple[str, str], ...]) -> Params:
    """Return one layer's parameters under its own names."""
    return {own: params[name] for own, name in route}


def ports_of(layers: tuple[Layer, ...]) -> tuple[Port | None, ...]:
    """Return each layer's port; None for a layer of one input and one output."""
    ports: list[Port | None] = []
    first_input = first_output = 1
    for layer in layers:
        n_in, n_out = len(inputs_of(layer)) - 1, len(outputs_of(layer)) - 1
        ports.append(
            Port(slice(first_input, first_input + n_in), slice(first_output, first_output + n_out))
            if n_in or n_out
            else None
        )
        first_input, first_output = first_input + n_in, first_output + n_out
    return tuple(ports)


def inputs_through(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Return the names of a composite's inputs: the main stream, and every layer's side inputs under its index."""
    return ("z", *(f"{index}.{name}" for index, layer in enumerate(layers) for name in inputs_of(layer)[1:]))


def outputs_through(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Return the names of a composite's outputs: the main stream, and every layer's side outputs under its index."""
    return ("y", *(f"{index}.{name}" for index, layer in enumerate(layers) for name in outputs_of(layer)[1:]))


def add_prefixes(own: Iterable[Params]) -> Params:
    """Return every layer's parameters (or gradients) in one mapping, each name prefixed by its layer's index."""
    return {f"{index}.{name}": value for index, params in enumerate(own) for name, value in params.items()}


def jacobian_of(layer: Layer, own: Params, z: Array) -> Array:
    """Return ∂y/∂z of one layer; refuse a layer that does not map rows to rows."""
    if not hasattr(layer, "jacobian"):
        raise TypeError(f"jacobian: expected layers that map rows to rows and have a jacobian, got {layer!r}")
    result: Array = layer.jacobian(own, z)
    return result


def stated_width(layer: Layer, name: str) -> int | None:
    """Return a layer's n_in or n_out, None if it has none."""
    width = getattr(layer, name, None)
    return None if width is None else int(width)


def require_layers(owner: str, layers: tuple[Layer, ...]) -> None:
    """Refuse a composite of no layers, or of something that is not a layer."""
    if not layers:
        raise ValueError(f"{owner}: layers: expected one or more, got none")
    for index, layer in enumerate(layers):
        if isinstance(layer, type) or not all(hasattr(layer, name) for name in ("init", "forward", "backward")):
            raise TypeError(f"{owner}: layer {index}: expected a Layer, got {layer!r}")


def note_layer(kind: str, index: int | str, layer: Layer) -> None:
    """Add a note to the error that is being raised: the layer that raised it, and its parameters' prefix.

    To be called in a `finally` block if the loop over the layers did not end. That catches nothing, and costs nothing
    while no layer fails; a context manager around the loop made networks of tiny layers up to 10 % slower.

    Args:
        kind: what the composite calls its layers.
        index: the layer's index, or in nested networks its location, as in "1.0".
        layer: the layer.
    """
    error = sys.exception()
    if isinstance(error, Exception):  # an interrupt is not the layer's
        error.add_note(f"in {kind} {index}, {layer}, parameters '{index}.…'")


@lru_cache(maxsize=256)
def _route(owner: str, depth: int, names: tuple[str, ...]) -> Routes:
    routes: list[list[tuple[str, str]]] = [[] for _ in range(depth)]
    indices = {str(index): index for index in range(depth)}
    for name in names:
        prefix, _, own = str(name).partition(".")
        if not own or prefix not in indices:
            raise ValueError(f"{owner}: params: expected names '0.…' to '{depth - 1}.…', got {name!r}")
        routes[indices[prefix]].append((own, name))
    return tuple(map(tuple, routes))
