"""What torch and JAX call `HalfSquaredError`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import HalfSquaredError
from oracles.adapters.functions import manual_loss
from oracles.registry import Case, oracle_for
from oracles.strategies import real, rows, widths


@oracle_for(HalfSquaredError)
def half_squared_error(draw: st.DrawFn) -> Case:
    """Any rows and widths, every reduction. A mean is no sum over the rows, so it is not batched."""
    loss = HalfSquaredError(draw(st.sampled_from(("sum", "mean", "none"))))
    shape = draw(rows()), draw(widths())
    return Case(
        manual_loss(loss),
        {"y": real(*shape), "target": real(*shape)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(loss),
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )


def options(loss: HalfSquaredError) -> Mapping[str, Hashable]:
    """What the references need to know of the loss."""
    return {"reduction": loss.reduction}


def torch_reference(y: Any, target: Any, reduction: str) -> Any:
    """torch's mse_loss has no ½, and its mean is over the entries, not the rows."""
    from torch.nn.functional import mse_loss

    if reduction == "none":
        return mse_loss(y, target, reduction="none").sum(1) / 2
    total = mse_loss(y, target, reduction="sum") / 2
    return total if reduction == "sum" else total / max(len(y), 1)


def jax_reference(y: Any, target: Any, reduction: str) -> Any:
    """½ Σ (y − y*)² by row."""
    import jax.numpy as jnp

    each = jnp.square(y - target).sum(axis=1) / 2
    if reduction == "none":
        return each
    return each.sum() if reduction == "sum" else each.sum() / max(y.shape[0], 1)
