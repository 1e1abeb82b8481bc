"""What torch and JAX call `LSTM`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import LSTM
from oracles.cases.layers import recurrent
from oracles.cases.layers.recurrent import along_a_sequence, jax_network, passes, torch_network
from oracles.registry import Case, oracle_for

parameters, options = recurrent.parameters, recurrent.options


@oracle_for(LSTM)
def lstm(draw: st.DrawFn) -> Case:
    """Every option."""
    return along_a_sequence(draw, LSTM, torch_reference, jax_reference)


def torch_reference(
    z: Any, h: Any, c: Any, n_layers: int, bidirectional: bool, lengths: Any = None, **params: Any
) -> Any:
    """The function behind torch.nn.LSTM."""
    import torch

    return torch_network(torch.lstm, z, (h, c), lengths, passes(params, n_layers, bidirectional))


def jax_reference(
    z: Any, h: Any, c: Any, n_layers: int, bidirectional: bool, lengths: Any = None, **params: Any
) -> Any:
    """A scan of the cell."""
    return jax_network(_cell, z, (h, c), lengths, passes(params, n_layers, bidirectional))


def _cell(own: Any, x: Any, state: Any) -> Any:
    import jax
    import jax.numpy as jnp

    h, c = state
    a = x @ own["W"] + h @ own["U"] + own.get("b", 0)
    i, f, g, o = jnp.split(a, 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
