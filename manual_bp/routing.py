"""What composites share: every parameter and every side input finds its layer by its prefix, "2.W" layer 2's W."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from .protocol import Array, Params, inputs_of, outputs_of

# For each layer, its parameters' own names, each with the name in the composite: (("W", "0.W"), ("b", "0.b")).
Routes: TypeAlias = tuple[tuple[tuple[str, str], ...], ...]


class Port(NamedTuple):
    """Where a layer's side inputs and outputs lie among those of its composite, whose place 0 is the main stream."""

    inputs: slice
    outputs: slice


def routes_of(owner: object, method: str, params: Any, depth: int) -> Routes:
    """Give every parameter to its layer; refuse one that belongs to none of the `depth` layers."""
    label = type(owner).__name__
    if type(params) is not dict and not isinstance(params, dict):
        raise TypeError(f"{label}.{method}: params: expected a dict of arrays, got {type(params).__name__}")
    return _route(label, depth, tuple(params))


def own_params(params: Params, route: tuple[tuple[str, str], ...]) -> Params:
    """Return one layer's parameters under its own names."""
    return {own: params[name] for own, name in route}


def ports_of(layers: tuple[Any, ...]) -> tuple[Port | None, ...]:
    """Return each layer's port; None for a layer of one input and one output."""
    ports: list[Port | None] = []
    given = came = 1
    for layer in layers:
        n_in, n_out = len(inputs_of(layer)) - 1, len(outputs_of(layer)) - 1
        ports.append(Port(slice(given, given + n_in), slice(came, came + n_out)) if n_in or n_out else None)
        given, came = given + n_in, came + n_out
    return tuple(ports)


def inputs_through(layers: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the names of a composite's inputs: the main stream, and every layer's side inputs under its place."""
    return ("z", *(f"{index}.{name}" for index, layer in enumerate(layers) for name in inputs_of(layer)[1:]))


def outputs_through(layers: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the names of a composite's outputs: the main stream, and every layer's side outputs under its place."""
    return ("y", *(f"{index}.{name}" for index, layer in enumerate(layers) for name in outputs_of(layer)[1:]))


def prefixed(own: Iterable[Params]) -> Params:
    """Return every layer's parameters (or gradients) in one mapping, prefixed by its place."""
    return {f"{index}.{name}": value for index, params in enumerate(own) for name, value in params.items()}


def jacobian_of(layer: Any, own: Params, z: Array) -> Array:
    """Return ∂y/∂z of one layer; refuse one that does not map rows to rows."""
    if not hasattr(layer, "jacobian"):
        raise TypeError(f"{layer} has no jacobian: (16) multiplies those of layers that map rows to rows")
    result: Array = layer.jacobian(own, z)
    return result


def stated_width(layer: Any, name: str) -> int | None:
    """Return a layer's n_in or n_out, None where it does not say."""
    width = getattr(layer, name, None)
    return None if width is None else int(width)


def require_layers(owner: str, layers: tuple[Any, ...]) -> None:
    """Refuse a composite of nothing, or of something that is no layer."""
    if not layers:
        raise ValueError(f"{owner}: expected one layer or more, got none")
    for index, layer in enumerate(layers):
        if isinstance(layer, type) or not all(hasattr(layer, name) for name in ("init", "forward", "backward")):
            raise TypeError(f"{owner}: layer {index} is no Layer: {layer!r}")


@lru_cache(maxsize=256)
def _route(owner: str, depth: int, names: tuple[str, ...]) -> Routes:
    routes: list[list[tuple[str, str]]] = [[] for _ in range(depth)]
    places = {str(index): index for index in range(depth)}
    for name in names:
        prefix, _, own = str(name).partition(".")
        if not own or prefix not in places:
            raise ValueError(f"{owner}: params[{name!r}] unknown: layers are '0.…' to '{depth - 1}.…'")
        routes[places[prefix]].append((own, name))
    return tuple(map(tuple, routes))
