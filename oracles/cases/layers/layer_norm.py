"""What torch and JAX call `LayerNorm`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import LayerNorm
from oracles.cases.layers import normalized_rows
from oracles.registry import Case, oracle_for


@oracle_for(LayerNorm)
def layer_norm(draw: st.DrawFn) -> Case:
    """One to three axes, before them none to two; entries that vary, hardly vary, or are all equal."""
    return normalized_rows(draw, LayerNorm, torch_reference, jax_reference, options)


def options(layer: LayerNorm) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {"shape": layer.shape, "eps": layer.eps}


def torch_reference(z: Any, shape: Any, eps: float, gamma: Any = None, beta: Any = None) -> Any:
    """Our conventions are torch's; of no rows torch's variance warns that it has no entries."""
    from torch.nn.functional import layer_norm

    if not z.numel():
        return z if gamma is None else z * gamma + beta
    return layer_norm(z, shape, gamma, beta, eps)


def jax_reference(z: Any, shape: Any, eps: float, gamma: Any = None, beta: Any = None) -> Any:
    """Mean and variance over the last axes."""
    import jax
    import jax.numpy as jnp

    axes = tuple(range(-len(shape), 0))
    deviation = z - jnp.mean(z, axes, keepdims=True)
    y = deviation * jax.lax.rsqrt(jnp.mean(deviation**2, axes, keepdims=True) + eps)
    return y if gamma is None else y * gamma + beta
