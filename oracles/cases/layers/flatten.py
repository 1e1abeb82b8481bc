"""What torch and JAX call `Flatten`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import Flatten
from oracles.adapters.functions import manual_layer
from oracles.registry import Case, oracle_for
from oracles.strategies import real, rows, widths


@oracle_for(Flatten)
def flatten(draw: st.DrawFn) -> Case:
    """Samples of no axis to three."""
    shape = draw(st.lists(widths(4), max_size=3))
    primals = {"z": real(draw(rows()), *shape)}
    return Case(manual_layer(Flatten()), primals, torch=torch_reference, jax=jax_reference, batched=("z",))


def torch_reference(z: Any) -> Any:
    """torch's flatten needs two axes, and no empty batch for −1."""
    return z.flatten(1) if z.ndim > 1 else z[:, None]


def jax_reference(z: Any) -> Any:
    """A reshape, which JAX traces for any number of rows."""
    import math

    return z.reshape(z.shape[0], math.prod(z.shape[1:]))
