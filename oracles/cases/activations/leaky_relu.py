"""What torch and JAX call `LeakyReLU`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import LeakyReLU
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(LeakyReLU)
def leaky_relu(draw: st.DrawFn) -> Case:
    """Any rows and widths; the default slope, none, one, a steep and a negative one."""
    layer = LeakyReLU(draw(st.sampled_from((0.01, 0.0, 1.0, 2.5, -0.5))))
    return on_rows(draw, layer, torch_reference, jax_reference, options(layer))


def options(layer: LeakyReLU) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {"slope": layer.slope}


def torch_reference(z: Any, slope: float) -> Any:
    """torch's slope at 0 is the left one, as ours."""
    from torch.nn.functional import leaky_relu

    return leaky_relu(z, slope)


def jax_reference(z: Any, slope: float) -> Any:
    """Not jax.nn.leaky_relu, whose derivative at 0 is 1 where torch's and ours is the slope."""
    import jax.numpy as jnp

    return jnp.where(z > 0, z, slope * z)


def native_jax(z: Any, slope: float) -> Any:
    """JAX's own: the same function, another derivative at 0."""
    import jax

    return jax.nn.leaky_relu(z, slope)
