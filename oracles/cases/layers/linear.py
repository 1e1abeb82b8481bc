"""What torch and JAX call `Linear`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import Linear
from oracles.adapters.functions import manual_layer
from oracles.registry import Case, oracle_for
from oracles.strategies import Drawn, real, rows, widths


@oracle_for(Linear)
def linear(draw: st.DrawFn) -> Case:
    """Any widths, with and without a bias."""
    n_rows, layer = draw(rows()), Linear(draw(widths()), draw(widths()), bias=draw(st.booleans()))
    primals = {"z": real(n_rows, layer.n_in), "W": real(layer.n_in, layer.n_out)}
    if layer.bias:
        primals["b"] = real(1, layer.n_out)
    return Case(manual_layer(layer), primals, torch=torch_reference, jax=jax_reference, batched=("z",))


def parameters(layer: Linear) -> dict[str, Drawn]:
    """As one starts a network: sums of n_in terms stay of the size of one, and activations out of saturation."""
    W = real(layer.n_in, layer.n_out, scale=layer.n_in**-0.5)
    return {"W": W, "b": real(1, layer.n_out)} if layer.bias else {"W": W}


def torch_reference(z: Any, W: Any, b: Any = None) -> Any:
    """torch keeps the weight transposed and the bias flat."""
    from torch.nn.functional import linear

    return linear(z, W.T, None if b is None else b[0])


def jax_reference(z: Any, W: Any, b: Any = None) -> Any:
    """An einsum over the shared axis."""
    import jax.numpy as jnp

    y = jnp.einsum("ni,ij->nj", z, W)
    return y if b is None else y + b
