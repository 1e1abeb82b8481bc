"""What torch and JAX call `PReLU`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import PReLU
from oracles.adapters.functions import manual_layer
from oracles.registry import Case, oracle_for
from oracles.strategies import real, rows, widths


@oracle_for(PReLU)
def prelu(draw: st.DrawFn) -> Case:
    """One slope for arrays of any rank, and one for each channel on axis 1."""
    shape = (draw(rows()), *(draw(widths(4)) for _ in range(draw(st.integers(0, 3)))))
    layer = PReLU(draw(st.sampled_from((1, *shape[1:2]))))
    return Case(
        manual_layer(layer),
        {"z": real(*shape), "slope": real(layer.channels)},
        torch=torch_reference,
        jax=jax_reference,
        batched=("z",),
        kinks="declared",
    )


def torch_reference(z: Any, slope: Any) -> Any:
    """torch's derivative at 0 is the slope, as ours."""
    from torch.nn.functional import prelu

    return prelu(z, slope)


def jax_reference(z: Any, slope: Any) -> Any:
    """JAX has no such unit."""
    import jax.numpy as jnp

    by_channel = slope if slope.shape[0] == 1 else slope.reshape(-1, *(1,) * (z.ndim - 2))
    return jnp.where(z > 0, z, by_channel * z)
