"""Reference cases of `Dropout`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from manual_bp import Dropout
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import JaxArray, Tensor, jax, torch
from oracles.registry import Case, Reference, oracle_for
from oracles.rule import Array
from oracles.strategies import indices, real, rows


def dropout_options(layer: Dropout) -> dict[str, float]:
    """The rate."""
    return {"rate": layer.rate}


def dropout_torch(z: Tensor, rate: float, rng: Tensor = None) -> Tensor:
    """A product, as torch's own: what has overflowed before is NaN where it is dropped. It has no value for 0/0."""
    if rng is None:
        return z.clone()
    keep = torch.from_numpy(survivors(rng.numpy(), z, rate))
    return z * keep.to(z.dtype) / (1 - rate) if rate < 1 else z * 0


def dropout_jax(z: JaxArray, rate: float, rng: JaxArray = None) -> JaxArray:
    """A call back to NumPy for the kept entries; the rest is JAX."""
    if rng is None:
        return z
    like = jax.ShapeDtypeStruct(z.shape, bool)
    keep = jax.pure_callback(lambda seed, z: survivors(seed, z, rate), like, rng, jax.lax.stop_gradient(z))
    return z * keep.astype(z.dtype) / (1 - rate) if rate < 1 else z * 0


def survivors(seed: Any, z: Any, rate: float) -> Array:
    """Return which entries of z are not dropped."""
    return np.asarray(np.random.default_rng(int(seed)).random(z.shape, np.float32) >= rate)


DROPOUT_REFERENCE = Reference(dropout_torch, dropout_jax, options=dropout_options)


@oracle_for(Dropout, reference=DROPOUT_REFERENCE)
def dropout(draw: st.DrawFn) -> Case:
    """Every rate from none to all, in training and not, on rows and on images."""
    rate = draw(st.sampled_from((0.5, 0.0, 0.1, 0.9, 1.0)))
    layer = Dropout(rate, training=draw(st.booleans()))
    shape = (draw(rows()), *draw(st.sampled_from(((), (4,), (2, 3)))))
    seed = {"rng": indices(below=2**16)} if layer.training else {}
    return DROPOUT_REFERENCE.case(
        manual_layer(layer),
        {"z": real(*shape), **seed},
        batched=() if layer.training else ("z",),
    )
