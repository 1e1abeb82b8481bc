"""Networks: layers in sequence, their gradients, and every δ^l by (15) or by (16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from .protocol import Array, Cache, Layer, Loss, Params
from .validation import require_shape

# For each layer, its parameters' own names, each with the name in the network: (("W", "0.W"), ("b", "0.b")).
_Routes: TypeAlias = tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True, init=False, repr=False)
class Sequential:
    """Layers one after another, y = l_n(… l_1(z)), and backwards by the chain rule; a Layer, so it nests.

    Parameters are flat: layer 0's W is "0.W", and in a nested network "1.0.W".

    Shapes: those of the first layer's z and of the last layer's y. Dtypes: the layers'.
    Raises: ValueError for no layers, for neighbours of different widths and for parameters that belong to
    no layer; TypeError for something that is no layer. What a layer raises carries a note with its place.
    Source: spec (7)–(16).
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        object.__setattr__(self, "layers", layers)
        _require_layers(layers)
        _require_matching_widths(layers)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    @property
    def n_in(self) -> int | None:
        """The number of columns that the network expects, where its layers say it."""
        return _first_width(self.layers, "n_in")

    @property
    def n_out(self) -> int | None:
        """The number of columns that the network gives, where its layers say it."""
        return _first_width(self.layers[::-1], "n_out")

    @property
    def preserves_shape(self) -> bool:
        """Whether every layer does."""
        return all(getattr(layer, "preserves_shape", False) for layer in self.layers)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw every layer's parameters, in order, from the one generator."""
        return {
            f"{index}.{name}": value
            for index, layer in enumerate(self.layers)
            for name, value in layer.init(rng, dtype).items()
        }

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return the last layer's output."""
        routes = self._routes("forward", params)
        caches = []
        try:
            for layer, route in zip(self.layers, routes, strict=True):
                z, cache = layer.forward({own: params[name] for own, name in route} if route else {}, z)
                caches.append(cache)
        except Exception as error:
            self._note(error, len(caches))
            raise
        return z, (routes, caches)

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return δ^1 by (15), and every layer's gradients under the names of its parameters."""
        routes, caches = cache
        grads: Params = {}
        try:
            for index in reversed(range(len(caches))):
                delta, dparams = self.layers[index].backward(caches[index], delta)
                for own, name in reversed(routes[index]):
                    grads[name] = dparams[own]
        except Exception as error:
            self._note(error, index)
            raise
        return delta, dict(reversed(grads.items()))

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return the product of the layers' Jacobians, the last one's first."""
        product = None
        for _, layer, own in _flatten(self, params):
            factor = _jacobian(layer, own, z)
            product = factor if product is None else factor @ product
            z, _ = layer.forward(own, z)
        assert product is not None
        return product

    def _routes(self, method: str, params: Params) -> _Routes:
        if not isinstance(params, dict):
            raise TypeError(f"Sequential.{method}: params: expected a dict of arrays, got {type(params).__name__}")
        return _route(len(self.layers), tuple(params))

    def _note(self, error: Exception, index: int) -> None:
        error.add_note(f"in layer {index} of the network, {self.layers[index]}, parameters '{index}.…'")


@lru_cache(maxsize=256)
def _route(depth: int, names: tuple[str, ...]) -> _Routes:
    """Give every parameter to its layer, by its prefix."""
    routes: list[list[tuple[str, str]]] = [[] for _ in range(depth)]
    places = {str(index): index for index in range(depth)}
    for name in names:
        prefix, _, own = str(name).partition(".")
        if not own or prefix not in places:
            raise ValueError(f"Sequential: params[{name!r}] unknown: layers are '0.…' to '{depth - 1}.…'")
        routes[places[prefix]].append((own, name))
    return tuple(map(tuple, routes))


def value_and_grad(network: Layer, loss: Loss, params: Params, x: Array, target: Array) -> tuple[Any, Params]:
    """Return the loss of the network's output, and its gradient by every parameter."""
    if getattr(loss, "reduction", None) == "none":
        raise ValueError(f"value_and_grad: {loss} gives one value for each row; reduce by 'sum' or 'mean'")
    y, cache = network.forward(params, x)
    value, loss_cache = loss.forward(y, target)
    _, grads = network.backward(cache, loss.backward(loss_cache))
    return value, grads


def deltas(network: Layer, params: Params, x: Array, delta: Array, *, closed_form: bool = False) -> list[Array]:
    """Return every δ^l = ∂L/∂z^l, from δ^1 at the input to δ^n, the given delta, nested networks laid flat.

    Layer by layer by (15); or, with `closed_form`, by (16): the Jacobians, each from its definition, are
    multiplied first, P_l = P_{l+1} J_l from P_n = I, and δ^l = δ^n P_l, so that no `backward` has a part
    in it.
    """
    layers = []
    factors = []
    z = x
    for place, layer, own in _flatten(network, params):
        try:
            if closed_form:
                factors.append(_jacobian(layer, own, z))
            z, cache = layer.forward(own, z)
        except Exception as error:
            error.add_note(f"in layer {place} of the network, {layer}")
            raise
        layers.append((layer, cache))
    require_shape(None, "deltas", "delta", delta, z.shape, z, "the network's output")
    result = [delta.copy()]
    if closed_form:
        product = np.eye(z.shape[1], dtype=z.dtype)[None]
        for factor in reversed(factors):
            product = product @ factor
            result.append((delta[:, None, :] @ product)[:, 0].copy())
    else:
        for layer, cache in reversed(layers):
            delta, _ = layer.backward(cache, delta)
            result.append(delta)
    return result[::-1]


def _flatten(network: Layer, params: Params, place: str = "") -> Iterator[tuple[str, Layer, Params]]:
    """Yield every layer that is no network, with its place, as in "1.0", and its own parameters."""
    if not isinstance(network, Sequential):
        yield place or "0", network, params
        return
    for index, route in enumerate(network._routes("forward", params)):
        inner = f"{place}.{index}" if place else str(index)
        yield from _flatten(network.layers[index], {own: params[name] for own, name in route}, inner)


def _jacobian(layer: Any, own: Params, z: Array) -> Array:
    """Return ∂y/∂z of one layer; refuse one that does not map rows to rows."""
    if not hasattr(layer, "jacobian"):
        raise TypeError(f"{layer} has no jacobian: (16) multiplies those of layers that map rows to rows")
    result: Array = layer.jacobian(own, z)
    return result


def _require_layers(layers: tuple[Any, ...]) -> None:
    if not layers:
        raise ValueError("Sequential: expected one layer or more, got none")
    for index, layer in enumerate(layers):
        if isinstance(layer, type) or not all(hasattr(layer, name) for name in ("init", "forward", "backward")):
            raise TypeError(f"Sequential: layer {index} is no Layer: {layer!r}")


def _require_matching_widths(layers: tuple[Any, ...]) -> None:
    giver, width = 0, None
    for index, layer in enumerate(layers):
        expected = getattr(layer, "n_in", None)
        if None not in (width, expected) and width != expected:
            raise ValueError(
                f"layer {index} {layer} expects {expected} columns but layer {giver} {layers[giver]} gives {width}"
            )
        if getattr(layer, "n_out", None) is not None:
            giver, width = index, layer.n_out
        elif not getattr(layer, "preserves_shape", False):
            width = None


def _first_width(layers: tuple[Any, ...], name: str) -> int | None:
    """Return the width that the first layer states, looking past those that preserve the shape."""
    for layer in layers:
        if (width := getattr(layer, name, None)) is not None:
            return int(width)
        if not getattr(layer, "preserves_shape", False):
            return None
    return None
