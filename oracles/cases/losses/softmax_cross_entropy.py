"""What torch and JAX call `SoftmaxCrossEntropy`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import SoftmaxCrossEntropy
from oracles.adapters.functions import manual_loss
from oracles.registry import Case, oracle_for
from oracles.strategies import indices, nonnegative, probabilities, real, rows, widths


@oracle_for(SoftmaxCrossEntropy)
def softmax_cross_entropy(draw: st.DrawFn) -> Case:
    """Every reduction; targets as class indices, as probabilities, and as weights that do not sum to one."""
    loss = SoftmaxCrossEntropy(draw(st.sampled_from(("sum", "mean", "none"))))
    n_rows, n_classes = draw(rows()), draw(widths())
    target = draw(
        st.sampled_from(
            (
                indices(n_rows, below=n_classes),
                probabilities(n_rows, n_classes),
                nonnegative(n_rows, n_classes),
            )
        )
    )
    return Case(
        manual_loss(loss),
        {"y": real(n_rows, n_classes), "target": target},
        torch=torch_reference,
        jax=jax_reference,
        options=options(loss),
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )


def options(loss: SoftmaxCrossEntropy) -> Mapping[str, Hashable]:
    """What the references need to know of the loss."""
    return {"reduction": loss.reduction}


def torch_reference(y: Any, target: Any, reduction: str) -> Any:
    """torch's mean over no rows is NaN, ours is 0."""
    from torch.nn.functional import cross_entropy

    if reduction != "mean":
        return cross_entropy(y, target, reduction=reduction)
    return cross_entropy(y, target, reduction="sum") / max(len(y), 1)


def jax_reference(y: Any, target: Any, reduction: str) -> Any:
    """−Σ y* log softmax(y) by row."""
    import jax
    import jax.numpy as jnp

    log_a = jax.nn.log_softmax(y, axis=1)
    if target.ndim == 1:
        each = -jnp.where(target[:, None] == jnp.arange(y.shape[1])[None, :], log_a, 0).sum(axis=1)
    else:
        each = -(target * log_a).sum(axis=1)
    if reduction == "none":
        return each
    return each.sum() if reduction == "sum" else each.sum() / max(y.shape[0], 1)
