"""What torch and JAX call `RMSNorm`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import RMSNorm
from oracles.cases.layers import normalized_rows
from oracles.registry import Case, oracle_for


@oracle_for(RMSNorm)
def rms_norm(draw: st.DrawFn) -> Case:
    """One to three axes, before them none to two; entries that vary, hardly vary, or are all equal."""
    return normalized_rows(draw, RMSNorm, torch_reference, jax_reference, options)


def options(layer: RMSNorm) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {"shape": layer.shape, "eps": layer.eps}


def torch_reference(z: Any, shape: Any, eps: float, gamma: Any = None) -> Any:
    """torch's own eps would be that of the dtype."""
    from torch.nn.functional import rms_norm

    return rms_norm(z, shape, gamma, eps)


def jax_reference(z: Any, shape: Any, eps: float, gamma: Any = None) -> Any:
    """The mean square over the last axes."""
    import jax
    import jax.numpy as jnp

    y = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), tuple(range(-len(shape), 0)), keepdims=True) + eps)
    return y if gamma is None else y * gamma
