"""What torch and JAX call `ReLU`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import ReLU
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(ReLU)
def relu(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, ReLU(), torch_reference, jax_reference)


def torch_reference(z: Any) -> Any:
    """The rectifier; both have ReLU'(0) = 0, as we have."""
    import torch

    return torch.relu(z)


def jax_reference(z: Any) -> Any:
    """The rectifier; both have ReLU'(0) = 0, as we have."""
    import jax

    return jax.nn.relu(z)
