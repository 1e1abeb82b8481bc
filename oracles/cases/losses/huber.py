"""What torch and JAX call `Huber`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import Huber
from oracles.adapters.functions import manual_loss
from oracles.registry import Case, oracle_for
from oracles.strategies import real, rows, widths


@oracle_for(Huber)
def huber(draw: st.DrawFn) -> Case:
    """Any rows and widths, every reduction, thresholds that all, some or no errors exceed."""
    loss = Huber(draw(st.sampled_from(("mean", "sum", "none"))), draw(st.sampled_from((1.0, 0.3, 1e-4, 1e6))))
    shape = draw(rows()), draw(widths())
    return Case(
        manual_loss(loss),
        {"y": real(*shape), "target": real(*shape)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(loss),
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )


def options(loss: Huber) -> Mapping[str, Hashable]:
    """What the references need to know of the loss."""
    return {"reduction": loss.reduction, "threshold": loss.threshold}


def torch_reference(y: Any, target: Any, reduction: str = "mean", threshold: float = 1.0) -> Any:
    """torch's mean is over the entries, ours over the rows."""
    from torch.nn.functional import huber_loss

    rows = huber_loss(y, target, reduction="none", delta=threshold).sum(1)
    return rows if reduction == "none" else rows.sum() / (max(len(y), 1) if reduction == "mean" else 1)


def jax_reference(y: Any, target: Any, reduction: str = "mean", threshold: float = 1.0) -> Any:
    """By its two pieces."""
    import jax.numpy as jnp

    error = jnp.abs(y - target)
    each = jnp.where(error <= threshold, error * error / 2, threshold * (error - threshold / 2))
    rows = each.sum(1)
    return rows if reduction == "none" else rows.sum() / (max(y.shape[0], 1) if reduction == "mean" else 1)
