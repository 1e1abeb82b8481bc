"""Reference cases of `Flatten`."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from manual_bp import Flatten
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import JaxArray, Tensor
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import real, rows, widths


def flatten_torch(z: Tensor) -> Tensor:
    """torch's flatten needs two axes, and no empty batch for −1."""
    return z.flatten(1) if z.ndim > 1 else z[:, None]


def flatten_jax(z: JaxArray) -> JaxArray:
    """A reshape, which JAX traces for any number of rows."""
    return z.reshape(z.shape[0], math.prod(z.shape[1:]))


FLATTEN_REFERENCE = Reference(flatten_torch, flatten_jax)


@oracle_for(Flatten, reference=FLATTEN_REFERENCE)
def flatten(draw: st.DrawFn) -> Case:
    """Samples of no axis to three."""
    shape = draw(st.lists(widths(4), max_size=3))
    primals = {"z": real(draw(rows()), *shape)}
    return FLATTEN_REFERENCE.case(manual_layer(Flatten()), primals, batched=("z",))
