"""Reference cases of `Embedding`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import Embedding
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import F, JaxArray, Tensor, jnp
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import Drawn, indices, real, rows, widths


def embedding_parameters(layer: Embedding) -> dict[str, Drawn]:
    """Rows of magnitude one."""
    return {"W": real(layer.n_entries, layer.n_out)}


def embedding_options(layer: Embedding) -> dict[str, Any]:
    """The padding index."""
    return {"padding_idx": layer.padding_idx}


def embedding_torch(z: Tensor, W: Tensor, padding_idx: int | None) -> Tensor:
    """torch gives the row of W at the padding index, manual_bp 0."""
    y = F.embedding(z, W)
    return y if padding_idx is None else y.masked_fill((z == padding_idx)[..., None], 0)


def embedding_jax(z: JaxArray, W: JaxArray, padding_idx: int | None) -> JaxArray:
    """W[z], 0 at the padding index."""
    y = W[z]
    return y if padding_idx is None else jnp.where((z == padding_idx)[..., None], 0, y)


EMBEDDING_REFERENCE = Reference(
    embedding_torch, embedding_jax, options=embedding_options, parameters=embedding_parameters
)


@oracle_for(Embedding, reference=EMBEDDING_REFERENCE)
def embedding(draw: st.DrawFn) -> Case:
    """Indices of rank 0 to 3, from many rows and from one alone, with and without a padding index."""
    n_entries = draw(widths())
    padding = draw(st.one_of(st.none(), st.integers(0, n_entries - 1)))
    layer = Embedding(n_entries, draw(widths(5)), padding)
    shape = draw(st.sampled_from(((3, 2), (6,), (2, 1, 3), ())))
    shape = (draw(rows()), *shape[1:]) if shape else shape
    below = draw(st.sampled_from((n_entries, n_entries, 1)))  # one: the same row everywhere
    return EMBEDDING_REFERENCE.case(
        manual_layer(layer),
        {"z": indices(*shape, below=below), **embedding_parameters(layer)},
        batched=("z",) if shape else (),
    )
