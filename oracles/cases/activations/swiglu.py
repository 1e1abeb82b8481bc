"""What torch and JAX call `SwiGLU`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import SwiGLU
from oracles.adapters.functions import manual_layer
from oracles.registry import Case, oracle_for
from oracles.strategies import real, rows, widths


@oracle_for(SwiGLU)
def swiglu(draw: st.DrawFn) -> Case:
    """Any even last axis of arrays of rank 1 to 3."""
    n = draw(rows())
    shape = *draw(st.sampled_from(((n,), (n, 2), (n,), ()))), 2 * draw(widths(4))
    return Case(
        manual_layer(SwiGLU()),
        {"z": real(*shape)},
        torch=torch_reference,
        jax=jax_reference,
        batched=("z",) if len(shape) > 1 else (),
    )


def torch_reference(z: Any) -> Any:
    """torch has silu, and no unit that it gates."""
    from torch.nn.functional import silu

    gates, units = z.chunk(2, dim=-1)
    return silu(gates) * units


def jax_reference(z: Any) -> Any:
    """The two halves by split."""
    import jax
    import jax.numpy as jnp

    gates, units = jnp.split(z, 2, axis=-1)
    return jax.nn.silu(gates) * units
