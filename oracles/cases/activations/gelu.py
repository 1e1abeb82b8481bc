"""What torch and JAX call `GELU`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import GELU
from oracles.cases.activations import on_rows
from oracles.registry import Case, oracle_for


@oracle_for(GELU)
def gelu(draw: st.DrawFn) -> Case:
    """Any rows and widths, both forms."""
    layer = GELU(draw(st.sampled_from(("none", "tanh"))))
    return on_rows(draw, layer, torch_reference, jax_reference, options(layer))


def options(layer: GELU) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {"approximate": layer.approximate}


def torch_reference(z: Any, approximate: str) -> Any:
    """By erfc: torch's own gelu has 1 + erf in it, which is 0 from z = −9 on."""
    import torch

    if approximate == "tanh":
        return torch.nn.functional.gelu(z, approximate="tanh")
    return z * torch.erfc(-z * 0.5**0.5) / 2


def jax_reference(z: Any, approximate: str) -> Any:
    """JAX's own default is the approximation."""
    import jax

    return jax.nn.gelu(z, approximate=approximate == "tanh")
