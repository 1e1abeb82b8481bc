"""What torch and JAX call `BinaryCrossEntropyWithLogits`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import BinaryCrossEntropyWithLogits
from oracles.adapters.functions import manual_loss
from oracles.registry import Case, oracle_for
from oracles.strategies import Drawn, real, rows, widths

WEIGHTS = (0.5, 2.0, 0.0, 1.25, 3.0)


@oracle_for(BinaryCrossEntropyWithLogits)
def binary_cross_entropy_with_logits(draw: st.DrawFn) -> Case:
    """Every reduction; no, one, zero and several weights; targets in [0, 1], and 0 and 1 alone."""
    shape = draw(rows()), draw(widths(len(WEIGHTS)))
    loss = BinaryCrossEntropyWithLogits(
        draw(st.sampled_from(("mean", "sum", "none"))), draw(st.sampled_from((None, 2.5, 0.0, WEIGHTS[: shape[1]])))
    )
    return Case(
        manual_loss(loss),
        {"y": real(*shape), "target": draw(st.sampled_from((shares(*shape), answers(*shape))))},
        torch=torch_reference,
        jax=jax_reference,
        options=options(loss),
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )


def options(loss: BinaryCrossEntropyWithLogits) -> Mapping[str, Hashable]:
    """What the references need to know of the loss."""
    return {"reduction": loss.reduction, "pos_weight": loss.pos_weight}


def shares(*shape: int) -> Drawn:
    """Numbers in [0, 1)."""
    return Drawn(shape, lambda rng, shape, _: rng.random(shape), special=False)


def answers(*shape: int) -> Drawn:
    """Zeros and ones, as floats."""
    return Drawn(shape, lambda rng, shape, _: rng.integers(0, 2, shape) * 1.0, special=False)


def torch_reference(y: Any, target: Any, reduction: str = "mean", pos_weight: Any = None) -> Any:
    """By logsigmoid: torch's own function cancels where the loss is small, and its mean is over the entries."""
    import torch
    from torch.nn.functional import logsigmoid

    weight = 1.0 if pos_weight is None else torch.tensor(pos_weight, dtype=y.dtype)
    rows = -(weight * target * logsigmoid(y) + (1 - target) * logsigmoid(-y)).sum(1)
    return rows if reduction == "none" else rows.sum() / (max(len(y), 1) if reduction == "mean" else 1)


def jax_reference(y: Any, target: Any, reduction: str = "mean", pos_weight: Any = None) -> Any:
    """−log s and −log(1 − s) by softplus."""
    import jax
    import jax.numpy as jnp

    weight = 1 if pos_weight is None else jnp.array(pos_weight, y.dtype)
    rows = (weight * target * jax.nn.softplus(-y) + (1 - target) * jax.nn.softplus(y)).sum(1)
    return rows if reduction == "none" else rows.sum() / (max(y.shape[0], 1) if reduction == "mean" else 1)
