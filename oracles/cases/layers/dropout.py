"""What torch and JAX call `Dropout`, and what to draw for it.

A framework draws other numbers from the same seed, so the references are handed the kept entries that NumPy draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from manual_bp import Dropout
from oracles.adapters.functions import manual_layer
from oracles.registry import Case, oracle_for
from oracles.rule import Array
from oracles.strategies import indices, real, rows


@oracle_for(Dropout)
def dropout(draw: st.DrawFn) -> Case:
    """Every rate from none to all, in training and not, on rows and on images."""
    rate = draw(st.sampled_from((0.5, 0.0, 0.1, 0.9, 1.0)))
    layer = Dropout(rate, training=draw(st.booleans()))
    shape = (draw(rows()), *draw(st.sampled_from(((), (4,), (2, 3)))))
    seed = {"rng": indices(below=2**16)} if layer.training else {}
    return Case(
        manual_layer(layer),
        {"z": real(*shape), **seed},
        torch=torch_reference,
        jax=jax_reference,
        options=options(layer),
        batched=() if layer.training else ("z",),
    )


def options(layer: Dropout) -> dict[str, float]:
    """The rate."""
    return {"rate": layer.rate}


def torch_reference(z: Any, rate: float, rng: Any = None) -> Any:
    """torch divides by 1 − rate, and has no value for 0/0."""
    import torch

    if rng is None:
        return z.clone()
    keep = torch.from_numpy(kept(rng.numpy(), z.detach().numpy(), rate))
    return torch.where(keep, z / (1 - rate), 0) if rate < 1 else z * 0


def jax_reference(z: Any, rate: float, rng: Any = None) -> Any:
    """A call back to NumPy for the kept entries; the rest is JAX."""
    import jax
    import jax.numpy as jnp

    if rng is None:
        return z
    like = jax.ShapeDtypeStruct(z.shape, bool)
    keep = jax.pure_callback(lambda seed, z: kept(seed, z, rate), like, rng, jax.lax.stop_gradient(z))
    return jnp.where(keep, z / (1 - rate), 0) if rate < 1 else z * 0


def kept(seed: Any, z: Any, rate: float) -> Array:
    """Return which entries of z stay."""
    return np.asarray(np.random.default_rng(int(seed)).random(z.shape, np.float32) >= rate)
