"""What torch and JAX call `Sigmoid`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import Sigmoid
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(Sigmoid)
def sigmoid(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, Sigmoid(), torch_reference, jax_reference)


def torch_reference(z: Any) -> Any:
    """The logistic function."""
    import torch

    return torch.sigmoid(z)


def jax_reference(z: Any) -> Any:
    """The logistic function."""
    import jax

    return jax.nn.sigmoid(z)
