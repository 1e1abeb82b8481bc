"""What torch and JAX call `SiLU`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import SiLU
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(SiLU)
def silu(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, SiLU(), torch_reference, jax_reference)


def torch_reference(z: Any) -> Any:
    """The sigmoid linear unit."""
    from torch.nn.functional import silu

    return silu(z)


def jax_reference(z: Any) -> Any:
    """The sigmoid linear unit."""
    import jax

    return jax.nn.silu(z)
