"""What torch and JAX call `Tanh`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import Tanh
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(Tanh)
def tanh(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, Tanh(), torch_reference, jax_reference)


def torch_reference(z: Any) -> Any:
    """The hyperbolic tangent."""
    import torch

    return torch.tanh(z)


def jax_reference(z: Any) -> Any:
    """The hyperbolic tangent."""
    import jax.numpy as jnp

    return jnp.tanh(z)
