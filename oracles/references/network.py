"""Reference cases of `Sequential`: the layers' references, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from hypothesis import strategies as st

from manual_bp import (
    GELU,
    GRU,
    LSTM,
    BatchNorm,
    Dropout,
    Embedding,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    MultiHeadAttention,
    Parallel,
    ReLU,
    Residual,
    Rowwise,
    Sequential,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
)
from oracles.adapters.functions import manual_layer, manual_objective
from oracles.lazy_modules import JaxArray, Tensor
from oracles.references._composition import Framework, Link, apply, link, own_primals, parameters_of
from oracles.references.cross_entropy import softmax_cross_entropy_jax, softmax_cross_entropy_torch
from oracles.registry import Case, Reference, oracle_for
from oracles.rule import one_or_tuple
from oracles.strategies import Drawn, booleans, indices, pixels, positive, real, rows, widths

Chain: TypeAlias = tuple[Link, ...]


def sequential_parameters(network: Sequential) -> dict[str, Drawn]:
    """Return how to fill the sequential_parameters of every layer in a network."""
    return {n: drawn for i, layer in enumerate(network.layers) for n, drawn in parameters_of(layer, f"{i}.").items()}


def sequential_options(network: Sequential) -> Mapping[str, Chain]:
    """Return the chain of references that a network is: widths left out, since the references do not need them."""
    return {"chain": tuple(map(link, network.layers))}


def sequential_torch(z: Tensor, chain: Chain, **primals: Tensor) -> Tensor:
    """The layers' torch references, composed."""
    return _compose("torch", z, chain, primals)


def sequential_jax(z: JaxArray, chain: Chain, **primals: JaxArray) -> JaxArray:
    """The layers' JAX references, composed."""
    return _compose("jax", z, chain, primals)


def objective_torch(z: Tensor, target: Tensor, chain: Chain, **params: Tensor) -> Tensor:
    """The network under summed cross-entropy."""
    return softmax_cross_entropy_torch(sequential_torch(z, chain, **params), target, "sum")


def objective_jax(z: JaxArray, target: JaxArray, chain: Chain, **params: JaxArray) -> JaxArray:
    """The network under summed cross-entropy."""
    return softmax_cross_entropy_jax(sequential_jax(z, chain, **params), target, "sum")


def _compose(framework: Framework, z: Any, chain: Chain, primals: Mapping[str, Any]) -> Any:
    side_outputs: tuple[Any, ...] = ()
    for i, each in enumerate(chain):
        z, *own = apply(framework, each, z, own_primals(primals, i))
        side_outputs = (*side_outputs, *own)
    return one_or_tuple((z, *side_outputs))


SEQUENTIAL_REFERENCE = Reference(
    sequential_torch, sequential_jax, options=sequential_options, parameters=sequential_parameters
)
OBJECTIVE_REFERENCE = Reference(objective_torch, objective_jax)


@oracle_for(Sequential, reference=SEQUENTIAL_REFERENCE)
def sequential(draw: st.DrawFn) -> Case:
    """Fully connected networks of one to three steps, with every activation, nested ones, and one that is no chain."""
    n = [draw(widths(6)) for _ in range(4)]
    network = draw(
        st.sampled_from(
            (
                Sequential(Linear(n[0], n[1])),
                Sequential(Linear(n[0], n[1]), Linear(n[1], n[2]), Linear(n[2], n[3])),
                Sequential(Linear(n[0], n[1]), Tanh(), Linear(n[1], n[2]), Sigmoid(), Linear(n[2], n[3])),
                Sequential(Linear(n[0], n[1]), ReLU(), Linear(n[1], n[2], bias=False), LeakyReLU(), Softmax()),
                Sequential(Sequential(Linear(n[0], n[1]), Identity()), Sequential(Tanh(), Linear(n[1], n[2]))),
                Sequential(Residual(Linear(n[0], n[0])), Parallel(Linear(n[0], n[1]), Tanh(), axis=-1), Softmax()),
            )
        )
    )
    return SEQUENTIAL_REFERENCE.case(
        manual_layer(network),
        {"z": real(draw(rows()), n[0]), **sequential_parameters(network)},
        batched=("z",),
        kinks="declared",
    )


@oracle_for(Sequential, reference=SEQUENTIAL_REFERENCE, name="SequenceNetwork")
def sequence_network(draw: st.DrawFn) -> Case:
    """Indices, states, lengths, masks and randomness as side inputs, nested and not."""
    n_rows, steps, n, hidden, entries = draw(rows(3)), draw(widths(3)), *(draw(widths(2)) for _ in range(3))
    state, of_hidden = real(n_rows, 1, hidden), real(n_rows, 1, n)
    seed, words, lengths = indices(below=2**16), indices(n_rows, steps, below=entries), indices(n_rows, below=steps + 1)
    mask, numbers = booleans(n_rows, 1, 1, steps, true=0.7), real(n_rows, steps, n)
    attention = Residual(MultiHeadAttention(n, 1, masked=True))
    forward = Residual(Rowwise(Sequential(LayerNorm(n), Linear(n, hidden), GELU(), Linear(hidden, n))))
    network, primals = draw(
        st.sampled_from(
            (
                (
                    Sequential(Embedding(entries, n, 0), Dropout(0.5), LSTM(n, hidden, lengths=True)),
                    {"z": words, "1.rng": seed, "2.h": state, "2.c": state, "2.lengths": lengths},
                ),
                (
                    Sequential(Embedding(entries, n), attention, Sequential(GRU(n, hidden), Tanh())),
                    {"z": words, "1.mask": mask, "2.0.h": state},
                ),
                (Sequential(attention, forward), {"z": numbers, "0.mask": mask}),
                (
                    Sequential(Dropout(0.1), Parallel(attention, Tanh(), GRU(n, n)), Dropout(0.5), GRU(n, n)),
                    {
                        "z": numbers, "0.rng": seed, "1.0.mask": mask, "1.2.h": of_hidden, "2.rng": seed,
                        "3.h": of_hidden,
                    },
                ),
            )
        )
    )  # fmt: skip
    return SEQUENTIAL_REFERENCE.case(
        manual_layer(network),
        {**primals, **sequential_parameters(network)},
        batched=() if any(name.endswith("rng") for name in network.inputs) else network.inputs,
    )


@oracle_for(Sequential, reference=SEQUENTIAL_REFERENCE, name="StatefulNetwork")
def stateful_network(draw: st.DrawFn) -> Case:
    """Running statistics as inputs and outputs: in training, with randomness, and in evaluation."""
    n_in, n, training = draw(widths(4)), draw(widths(4)), draw(st.booleans())
    norm = Sequential(BatchNorm(n, training=training), Tanh())
    network = Sequential(Linear(n_in, n), norm, Dropout(0.3, training), Linear(n, 2))
    n_rows = draw(st.integers(3, 8) if training else rows())  # of two, JAX's derivative of a variance is rounding alone
    primals = {"z": real(n_rows, n_in), "1.0.running_mean": real(n), "1.0.running_var": positive(n)}
    if training:
        primals["2.rng"] = indices(below=2**16)
    return SEQUENTIAL_REFERENCE.case(
        manual_layer(network),
        {**primals, **sequential_parameters(network)},
        batched=() if training else ("z",),
    )


@oracle_for(Sequential, reference=SEQUENTIAL_REFERENCE, name="DigitsNetwork")
def digits_network(draw: st.DrawFn) -> Case:
    """The network of examples/digits.py, 64-32-10 under cross-entropy, on images of grey levels."""
    network, loss = Sequential(Linear(64, 32), Tanh(), Linear(32, 10)), SoftmaxCrossEntropy("sum")
    n_rows = draw(rows(32))
    return OBJECTIVE_REFERENCE.case(
        manual_objective(network, loss, name="64-32-10 under cross-entropy"),
        {"z": pixels(n_rows, 64), "target": indices(n_rows, below=10), **sequential_parameters(network)},
        options=sequential_options(network),
        batched=("z", "target"),
        kinks="declared",
    )
