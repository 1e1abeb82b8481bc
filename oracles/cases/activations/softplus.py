"""What torch and JAX call `Softplus`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import Softplus
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(Softplus)
def softplus(draw: st.DrawFn) -> Case:
    """Any rows and widths; several β, no threshold, torch's and a low one."""
    layer = Softplus(draw(st.sampled_from((1.0, 0.5, 3.0, 100.0))), draw(st.sampled_from((None, 20.0, 3.5, -1.5))))
    return on_rows(draw, layer, torch_reference, jax_reference, options(layer))


def options(layer: Softplus) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {"beta": layer.beta, "threshold": layer.threshold}


def torch_reference(z: Any, beta: float, threshold: float | None) -> Any:
    """torch's softplus always has a threshold, and overflows with an infinite one."""
    import torch

    if threshold is None:
        return torch.logaddexp(torch.zeros_like(z), beta * z) / beta
    return torch.nn.functional.softplus(z, beta, threshold)


def jax_reference(z: Any, beta: float, threshold: float | None) -> Any:
    """JAX's softplus has neither β nor a threshold."""
    import jax
    import jax.numpy as jnp

    y = jax.nn.softplus(beta * z) / beta
    return y if threshold is None else jnp.where(beta * z > threshold, z, y)
