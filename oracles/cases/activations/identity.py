"""What torch and JAX call `Identity`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import Identity
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(Identity)
def identity(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, Identity(), torch_reference, jax_reference)


def torch_reference(z: Any) -> Any:
    """The identity."""
    return z.clone()


def jax_reference(z: Any) -> Any:
    """The identity."""
    return z
