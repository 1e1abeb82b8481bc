"""Networks: layers in sequence, their gradients, and every δ^l by (15) or by (16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .protocol import Array, Arrays, Cache, Layer, Loss, Params, as_tuple, untupled
from .routing import (
    Port,
    inputs_through,
    jacobian_of,
    outputs_through,
    own_params,
    ports_of,
    prefixed,
    require_layers,
    routes_of,
)
from .validation import require_parts, require_shape


@dataclass(frozen=True, init=False, repr=False)
class Sequential:
    """Layers one after another, y = l_n(… l_1(z)), and backwards by the chain rule; a Layer, so it nests.

    Names are flat: layer 0's W is "0.W", and in a nested network "1.0.W". So are side inputs and outputs: where a
    layer has several, the first is the main stream through the network, called z and y, and the others go in and
    come out beside it, as "2.rng" or "1.running_mean".

    Shapes: those of the first layer's z and of the last layer's y. Dtypes: the layers'.
    Raises: ValueError for no layers, for neighbours of different widths, for parameters that belong to no layer and
    for another number of inputs than `inputs` names; TypeError for something that is no layer. What a layer raises
    carries a note with its place.
    Source: spec (7)–(16).
    """

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...] = field(compare=False)
    outputs: tuple[str, ...] = field(compare=False)
    _ports: tuple[Port | None, ...] = field(compare=False)

    def __init__(self, *layers: Layer) -> None:
        require_layers("Sequential", layers)
        _require_matching_widths(layers)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "inputs", inputs_through(layers))
        object.__setattr__(self, "outputs", outputs_through(layers))
        object.__setattr__(self, "_ports", ports_of(layers))

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
        return prefixed(layer.init(rng, dtype) for layer in self.layers)

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return the last layer's output, and beside it the side outputs of all layers where there are any."""
        layers, ports = self.layers, self._ports
        routes = routes_of(self, "forward", params, len(layers))
        given = require_parts(self, "forward", "z", z, self.inputs) if len(self.inputs) > 1 else ()
        if given:
            z = given[0]
        came: list[Any] = []
        caches: list[Cache] = []
        try:
            for index, route in enumerate(routes):
                own = {name: params[full] for name, full in route} if route else {}
                port = ports[index]
                if port is None:
                    z, cache = layers[index].forward(own, z)
                else:
                    y, cache = layers[index].forward(own, untupled((z, *given[port.inputs])))
                    z, *beside = as_tuple(y)
                    came += beside
                caches.append(cache)
        except Exception as error:
            self._note(error, len(caches))
            raise
        return (z, *came) if came else z, (routes, caches)

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return δ^1 by (15), the side inputs' cotangents, and every layer's gradients under their names."""
        routes, caches = cache
        layers, ports = self.layers, self._ports
        given = require_parts(self, "backward", "delta", delta, self.outputs) if len(self.outputs) > 1 else ()
        if given:
            delta = given[0]
        beside: tuple[Any, ...] = ()
        grads: Params = {}
        try:
            for index in range(len(caches) - 1, -1, -1):
                port = ports[index]
                if port is None:
                    delta, dparams = layers[index].backward(caches[index], delta)
                else:
                    came, dparams = layers[index].backward(caches[index], untupled((delta, *given[port.outputs])))
                    delta, *own = as_tuple(came)
                    beside = (*own, *beside)
                for name, full in reversed(routes[index]):
                    grads[full] = dparams[name]
        except Exception as error:
            self._note(error, index)
            raise
        return (delta, *beside) if beside else delta, dict(reversed(grads.items()))

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return the product of the layers' Jacobians, the last one's first."""
        product = None
        for _, layer, own in _flatten(self, params):
            factor = jacobian_of(layer, own, z)
            product = factor if product is None else factor @ product
            z, _ = layer.forward(own, z)
        assert product is not None
        return product

    def _note(self, error: Exception, index: int) -> None:
        error.add_note(f"in layer {index} of the network, {self.layers[index]}, parameters '{index}.…'")


def value_and_grad(network: Layer, loss: Loss, params: Params, x: Arrays, target: Array) -> tuple[Any, Params]:
    """Return the loss of the network's output, and its gradient by every parameter.

    Of several outputs the loss is that of the main stream; on the others, as on a state that comes out, it does not
    depend.
    """
    if getattr(loss, "reduction", None) == "none":
        raise ValueError(f"value_and_grad: {loss} gives one value for each row; reduce by 'sum' or 'mean'")
    y, cache = network.forward(params, x)
    main, beside = (y[0], y[1:]) if isinstance(y, tuple) else (y, ())
    value, loss_cache = loss.forward(main, target)
    delta: Any = loss.backward(loss_cache)
    _, grads = network.backward(cache, (delta, *map(np.zeros_like, beside)) if beside else delta)
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
                factors.append(jacobian_of(layer, own, z))
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
    for index, route in enumerate(routes_of(network, "forward", params, len(network.layers))):
        inner = f"{place}.{index}" if place else str(index)
        yield from _flatten(network.layers[index], own_params(params, route), inner)


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
