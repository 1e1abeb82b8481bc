"""What torch and JAX call `GRU`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import GRU
from oracles.cases.layers import recurrent
from oracles.cases.layers.recurrent import along_a_sequence, jax_network, passes, torch_network
from oracles.registry import Case, oracle_for

parameters, options = recurrent.parameters, recurrent.options


@oracle_for(GRU)
def gru(draw: st.DrawFn) -> Case:
    """Every option."""
    return along_a_sequence(draw, GRU, torch_reference, jax_reference)


def torch_reference(z: Any, h: Any, n_layers: int, bidirectional: bool, lengths: Any = None, **params: Any) -> Any:
    """The function behind torch.nn.GRU."""
    import torch

    return torch_network(torch.gru, z, (h,), lengths, passes(params, n_layers, bidirectional))


def jax_reference(z: Any, h: Any, n_layers: int, bidirectional: bool, lengths: Any = None, **params: Any) -> Any:
    """A scan of the cell."""
    return jax_network(_cell, z, (h,), lengths, passes(params, n_layers, bidirectional))


def _cell(own: Any, x: Any, state: Any) -> Any:
    import jax
    import jax.numpy as jnp

    (h,) = state
    x_r, x_u, x_n = jnp.split(x @ own["W"] + own.get("b", 0), 3, axis=1)
    s_r, s_u, s_n = jnp.split(h @ own["U"] + own.get("d", 0), 3, axis=1)
    u = jax.nn.sigmoid(x_u + s_u)
    n = jnp.tanh(x_n + jax.nn.sigmoid(x_r + s_r) * s_n)
    return ((1 - u) * n + u * h,)
