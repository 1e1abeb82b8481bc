"""What torch and JAX call `Embedding`, and what to draw for it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import Embedding
from oracles.adapters.functions import manual_layer
from oracles.registry import Case, oracle_for
from oracles.strategies import Drawn, indices, real, rows, widths


@oracle_for(Embedding)
def embedding(draw: st.DrawFn) -> Case:
    """Indices of rank 0 to 3, from many rows and from one alone, with and without a padding index."""
    n_entries = draw(widths())
    padding = draw(st.one_of(st.none(), st.integers(0, n_entries - 1)))
    layer = Embedding(n_entries, draw(widths(5)), padding)
    shape = draw(st.sampled_from(((3, 2), (6,), (2, 1, 3), ())))
    shape = (draw(rows()), *shape[1:]) if shape else shape
    named = draw(st.sampled_from((n_entries, n_entries, 1)))  # one: the same row everywhere
    return Case(
        manual_layer(layer),
        {"z": indices(*shape, below=named), **parameters(layer)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(layer),
        batched=("z",) if shape else (),
    )


def parameters(layer: Embedding) -> dict[str, Drawn]:
    """Rows of the size of one."""
    return {"W": real(layer.n_entries, layer.n_out)}


def options(layer: Embedding) -> dict[str, Any]:
    """The padding index."""
    return {"padding_idx": layer.padding_idx}


def torch_reference(z: Any, W: Any, padding_idx: int | None) -> Any:
    """torch gives the row of W at the padding index, ours 0."""
    from torch.nn.functional import embedding

    y = embedding(z, W)
    return y if padding_idx is None else y.masked_fill((z == padding_idx)[..., None], 0)


def jax_reference(z: Any, W: Any, padding_idx: int | None) -> Any:
    """W[z], 0 at the padding index."""
    import jax.numpy as jnp

    y = W[z]
    return y if padding_idx is None else jnp.where((z == padding_idx)[..., None], 0, y)
