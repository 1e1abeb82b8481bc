"""Networks: layers in sequence, their gradients, and every δ^l by (15) or by (16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from ._routing import (
    Port,
    add_prefixes,
    inputs_through,
    jacobian_of,
    note_layer,
    outputs_through,
    own_params,
    ports_of,
    require_layers,
    routes_of,
)
from ._validation import require_parts, require_shape
from .protocol import Array, Arrays, Cache, Layer, Loss, Number, Params, as_tuple, one_or_tuple


@dataclass(frozen=True, init=False, repr=False)
class Sequential:
    """Layers in sequence, y = l_n(… l_1(z)), and backwards by the chain rule; itself a Layer, so it nests.

    Names are flat: layer 0's W is "0.W", and in a nested network "1.0.W". So are side inputs and outputs: if a layer
    has several inputs or outputs, the first one is the main stream through the network, called z and y; the others are
    inputs and outputs of the network, as "2.rng" or "1.running_mean".

    Args:
        *layers: the layers, in order.

    Shapes: those of the first layer's z and of the last layer's y. Dtypes: the layers'.

    Raises:
        ValueError: for no layers, neighbours of different widths, parameters that belong to no layer.
        TypeError: for something that is not a layer, or another number of inputs than `inputs` names. An error in a
            layer carries a note that names the layer.

    Source: docs/derivation.md, eq. (7)–(16).
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
        """The number of columns that the network expects, None if unknown."""
        return _first_width(self.layers, "n_in")

    @property
    def n_out(self) -> int | None:
        """The number of columns that the network gives, None if unknown."""
        return _first_width(self.layers[::-1], "n_out")

    @property
    def preserves_shape(self) -> bool:
        """Whether every layer does."""
        return all(getattr(layer, "preserves_shape", False) for layer in self.layers)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw every layer's parameters, in order, from the one generator."""
        return add_prefixes(layer.init(rng, dtype) for layer in self.layers)

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return the last layer's output, followed by the side outputs of all layers if there are any."""
        layers, ports = self.layers, self._ports
        routes = routes_of(self, "forward", params, len(layers))
        inputs = require_parts(self, "forward", "z", z, self.inputs) if len(self.inputs) > 1 else ()
        if inputs:
            z = inputs[0]
        side_outputs: list[Arrays] = []
        caches: list[Cache] = []
        try:
            # A plain loop over indices, with no call but the layer's: in a network of tiny layers these lines take as
            # long as the arithmetic.
            for index, route in enumerate(routes):
                own = {name: params[full] for name, full in route} if route else {}
                port = ports[index]
                if port is None:
                    z, cache = layers[index].forward(own, z)
                else:
                    y, cache = layers[index].forward(own, one_or_tuple((z, *inputs[port.inputs])))
                    z, *own_outputs = as_tuple(y)
                    side_outputs += own_outputs
                caches.append(cache)
        finally:
            if len(caches) < len(layers):
                note_layer("layer", len(caches), layers[len(caches)])
        return (z, *side_outputs) if side_outputs else z, (routes, caches)

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return δ^1 by (15), the side inputs' cotangents, and every layer's gradients under their names."""
        routes, caches = cache
        layers, ports = self.layers, self._ports
        deltas = require_parts(self, "backward", "delta", delta, self.outputs) if len(self.outputs) > 1 else ()
        if deltas:
            delta = deltas[0]
        side_cotangents: tuple[Arrays, ...] = ()
        grads: Params = {}
        remaining = len(caches)
        try:
            while remaining:
                index = remaining - 1
                port = ports[index]
                if port is None:
                    delta, dparams = layers[index].backward(caches[index], delta)
                else:
                    dz, dparams = layers[index].backward(caches[index], one_or_tuple((delta, *deltas[port.outputs])))
                    delta, *own_cotangents = as_tuple(dz)
                    side_cotangents = (*own_cotangents, *side_cotangents)
                for name, full in reversed(routes[index]):
                    grads[full] = dparams[name]
                remaining = index
        finally:
            if remaining:
                note_layer("layer", remaining - 1, layers[remaining - 1])
        return (delta, *side_cotangents) if side_cotangents else delta, dict(reversed(grads.items()))

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return the product of the layers' Jacobians, the last one's first."""
        product = None
        for _, layer, own in _flatten(self, params):
            factor = jacobian_of(layer, own, z)
            product = factor if product is None else factor @ product
            z, _ = layer.forward(own, z)
        assert product is not None
        return product


def value_and_grad(network: Layer, loss: Loss, params: Params, x: Arrays, target: Array) -> tuple[Number, Params]:
    """Return the loss of the network's output, and its gradient by every parameter.

    Args:
        network: a layer.
        loss: the loss, reduced by "sum" or "mean".
        params: the network's parameters.
        x: the network's input, or a tuple of its inputs.
        target: the loss's target.

    Returns:
        The value and the gradients by parameter name. If the network has several outputs, the loss is that of the main
        stream y, and the cotangents of the others are zero.

    Raises:
        ValueError: for a loss with reduction "none", and what the layers raise.

    Source: docs/derivation.md, eq. (5)–(9), (15).
    """
    if getattr(loss, "reduction", None) == "none":
        raise ValueError(f"value_and_grad: loss: expected reduction 'sum' or 'mean', got {loss}")
    y, cache = network.forward(params, x)
    main, side_outputs = (y[0], y[1:]) if isinstance(y, tuple) else (y, ())
    value, loss_cache = loss.forward(main, target)
    delta = loss.backward(loss_cache)
    _, grads = network.backward(cache, (delta, *map(np.zeros_like, side_outputs)) if side_outputs else delta)
    return value, grads


def deltas(network: Layer, params: Params, x: Array, delta: Array, *, closed_form: bool = False) -> list[Array]:
    """Return every δ^l = ∂L/∂z^l, from δ^1 at the input to δ^n, the given delta, nested networks flattened.

    Args:
        network: a layer, as a rule a `Sequential`.
        params: its parameters.
        x: its input, shape (N, n) if closed_form.
        delta: δ^n, the cotangent of its output.
        closed_form: False computes layer by layer by (15). True computes by (16): the Jacobians, each from its
            definition, are multiplied first, P_l = P_{l+1} J_l from P_n = I, and δ^l = δ^n P_l, without any `backward`.

    Raises:
        ValueError: for a delta of another shape than the output's.
        TypeError: if closed_form and a layer has no `jacobian`.

    Source: docs/derivation.md, eq. (15)–(16).
    """
    layers = []
    factors = []
    z = x
    steps = list(_flatten(network, params))
    try:
        for _, layer, own in steps:
            if closed_form:
                factors.append(jacobian_of(layer, own, z))
            z, cache = layer.forward(own, z)
            layers.append((layer, cache))
    finally:
        if len(layers) < len(steps):
            location, layer, _ = steps[len(layers)]
            note_layer("layer", location, layer)
    require_shape(None, "deltas", "delta", delta, z.shape, z, "the network's output")
    result = [delta.copy()]
    if closed_form:
        # The Jacobians are multiplied from the output inwards, P_l = P_{l+1} J_l, so each product serves all before it.
        product = np.eye(z.shape[1], dtype=z.dtype)[None]
        for factor in reversed(factors):
            product = product @ factor
            result.append((delta[:, None, :] @ product)[:, 0].copy())
    else:
        for layer, cache in reversed(layers):
            delta, _ = layer.backward(cache, delta)
            result.append(delta)
    return result[::-1]


def _flatten(network: Layer, params: Params, location: str = "") -> Iterator[tuple[str, Layer, Params]]:
    """Yield every layer that is not a network, with its location, as in "1.0", and its own parameters."""
    if not isinstance(network, Sequential):
        yield location or "0", network, params
        return
    for index, route in enumerate(routes_of(network, "forward", params, len(network.layers))):
        inner = f"{location}.{index}" if location else str(index)
        yield from _flatten(network.layers[index], own_params(params, route), inner)


def _require_matching_widths(layers: tuple[Layer, ...]) -> None:
    source, width = 0, None
    for index, layer in enumerate(layers):
        expected = getattr(layer, "n_in", None)
        if None not in (width, expected) and width != expected:
            raise ValueError(
                f"Sequential: layer {index}: expected {width} columns, as layer {source} {layers[source]} gives, "
                f"got {layer} of {expected}"
            )
        if (declared := getattr(layer, "n_out", None)) is not None:
            source, width = index, declared
        elif not getattr(layer, "preserves_shape", False):
            width = None


def _first_width(layers: tuple[Layer, ...], name: str) -> int | None:
    """Return the width that the first layer declares, skipping layers that preserve the shape."""
    for layer in layers:
        if (width := getattr(layer, name, None)) is not None:
            return int(width)
        if not getattr(layer, "preserves_shape", False):
            return None
    return None
