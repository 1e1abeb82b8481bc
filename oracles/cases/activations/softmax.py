"""What torch and JAX call `Softmax`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import Softmax
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(Softmax)
def softmax(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, Softmax(), torch_reference, jax_reference)


def torch_reference(z: Any) -> Any:
    """Softmax over the last axis, (22)."""
    import torch

    return torch.softmax(z, dim=-1)


def jax_reference(z: Any) -> Any:
    """Softmax over the last axis, (22)."""
    import jax

    return jax.nn.softmax(z, axis=-1)
