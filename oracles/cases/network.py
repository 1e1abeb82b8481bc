"""What torch and JAX call a `Sequential`, and what to draw for it: its layers' references, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

from hypothesis import strategies as st

from manual_bp import (
    Identity,
    LeakyReLU,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
)
from oracles.cases.losses import softmax_cross_entropy
from oracles.lifts.manual import manual_layer, manual_objective
from oracles.registry import Case, oracle_for
from oracles.strategies import Drawn, indices, pixels, real, rows, widths

# The twin module of each layer with its options; a nested network is a chain in place of a module's name.
Link: TypeAlias = tuple[Any, tuple[tuple[str, Any], ...]]
Chain: TypeAlias = tuple[Link, ...]


@oracle_for(Sequential)
def sequential(draw: st.DrawFn) -> Case:
    """Fully connected networks of one to three steps, with every activation, one of them nested."""
    n = [draw(widths(6)) for _ in range(4)]
    network = draw(
        st.sampled_from(
            (
                Sequential(Linear(n[0], n[1])),
                Sequential(Linear(n[0], n[1]), Linear(n[1], n[2]), Linear(n[2], n[3])),
                Sequential(Linear(n[0], n[1]), Tanh(), Linear(n[1], n[2]), Sigmoid(), Linear(n[2], n[3])),
                Sequential(Linear(n[0], n[1]), ReLU(), Linear(n[1], n[2], bias=False), LeakyReLU(), Softmax()),
                Sequential(Sequential(Linear(n[0], n[1]), Identity()), Sequential(Tanh(), Linear(n[1], n[2]))),
            )
        )
    )
    return Case(
        manual_layer(network),
        {"z": real(draw(rows()), n[0]), **parameters(network)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(network),
        batched=("z",),
        kinks="declared",
    )


@oracle_for(Sequential, name="DigitsNetwork")
def digits_network(draw: st.DrawFn) -> Case:
    """The network of examples/digits.py, 64-32-10 under cross-entropy, on images of grey levels."""
    network, loss = Sequential(Linear(64, 32), Tanh(), Linear(32, 10)), SoftmaxCrossEntropy("sum")
    n_rows = draw(rows(32))
    return Case(
        manual_objective(network, loss, name="64-32-10 under cross-entropy"),
        {"z": pixels(n_rows, 64), "target": indices(n_rows, below=10), **parameters(network)},
        torch=torch_objective,
        jax=jax_objective,
        options=options(network),
        batched=("z", "target"),
        kinks="declared",
    )


def parameters(network: Sequential, prefix: str = "") -> dict[str, Drawn]:
    """Return how to fill the parameters of every `Linear` in a network."""
    found: dict[str, Drawn] = {}
    for i, layer in enumerate(network.layers):
        if isinstance(layer, Sequential):
            found |= parameters(layer, f"{prefix}{i}.")
        elif isinstance(layer, Linear):
            # As one starts a network: sums of n_in terms stay of the size of one, and activations out of saturation.
            found[f"{prefix}{i}.W"] = real(layer.n_in, layer.n_out, scale=layer.n_in**-0.5)
            if layer.bias:
                found[f"{prefix}{i}.b"] = real(1, layer.n_out)
    return found


def options(network: Sequential) -> Mapping[str, Chain]:
    """Return the chain of references that a network is: widths left out, since the references do not need them."""
    return {"chain": tuple(_link(layer) for layer in network.layers)}


def _link(layer: Any) -> Link:
    twin = type(layer).__module__.replace("manual_bp", "oracles.cases", 1)
    of_layer: Callable[[Any], Mapping[str, Any]] = getattr(import_module(twin), "options", lambda layer: {})
    return twin, tuple(of_layer(layer).items())


def torch_reference(z: Any, chain: Chain, **params: Any) -> Any:
    """The layers' torch references, composed."""
    return _composed("torch_reference", z, chain, params)


def jax_reference(z: Any, chain: Chain, **params: Any) -> Any:
    """The layers' JAX references, composed."""
    return _composed("jax_reference", z, chain, params)


def torch_objective(z: Any, target: Any, chain: Chain, **params: Any) -> Any:
    """The network under summed cross-entropy."""
    return softmax_cross_entropy.torch_reference(torch_reference(z, chain, **params), target, "sum")


def jax_objective(z: Any, target: Any, chain: Chain, **params: Any) -> Any:
    """The network under summed cross-entropy."""
    return softmax_cross_entropy.jax_reference(jax_reference(z, chain, **params), target, "sum")


def _composed(reference: str, z: Any, chain: Chain, params: Mapping[str, Any]) -> Any:
    for i, (twin, configuration) in enumerate(chain):
        own = {name.removeprefix(f"{i}."): p for name, p in params.items() if name.startswith(f"{i}.")}
        z = _function(twin, reference)(z, **own, **dict(configuration))
    return z


@lru_cache
def _function(twin: str, reference: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(import_module(twin), reference)
    return found
