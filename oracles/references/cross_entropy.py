"""Reference cases of the cross-entropies."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from manual_bp import BinaryCrossEntropyWithLogits, CrossEntropy, SoftmaxCrossEntropy
from oracles.adapters.functions import manual_loss
from oracles.lazy_modules import F, JaxArray, Tensor, jax, jnp, torch
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import Drawn, Infinite, constant, indices, nonnegative, probabilities, real, rows, widths

WEIGHTS = (0.5, 2.0, 0.0, 1.25, 3.0)


def binary_cross_entropy_with_logits_options(loss: BinaryCrossEntropyWithLogits) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"reduction": loss.reduction, "pos_weight": loss.pos_weight}


def shares(*shape: int) -> Drawn:
    """Numbers in [0, 1)."""
    return Drawn(shape, lambda rng, shape, _: rng.random(shape), special=False)


def answers(*shape: int) -> Drawn:
    """Zeros and ones, as floats."""
    return Drawn(shape, lambda rng, shape, _: rng.integers(0, 2, shape) * 1.0, special=False)


def binary_cross_entropy_with_logits_torch(
    y: Tensor, target: Tensor, reduction: str = "mean", pos_weight: float | tuple[float, ...] | None = None
) -> Tensor:
    """By logsigmoid: torch's own function cancels where the loss is small, and its mean is over the entries."""
    weight = 1.0 if pos_weight is None else torch.tensor(pos_weight, dtype=y.dtype, device=y.device)
    rows = -(weight * target * F.logsigmoid(y) + (1 - target) * F.logsigmoid(-y)).sum(1)
    return rows if reduction == "none" else rows.sum() / (max(len(y), 1) if reduction == "mean" else 1)


def binary_cross_entropy_with_logits_jax(
    y: JaxArray, target: JaxArray, reduction: str = "mean", pos_weight: float | tuple[float, ...] | None = None
) -> JaxArray:
    """−log s and −log(1 − s) by softplus."""
    weight = 1 if pos_weight is None else jnp.array(pos_weight, y.dtype)
    rows = (weight * target * jax.nn.softplus(-y) + (1 - target) * jax.nn.softplus(y)).sum(1)
    return rows if reduction == "none" else rows.sum() / (max(y.shape[0], 1) if reduction == "mean" else 1)


BINARY_CROSS_ENTROPY_WITH_LOGITS_REFERENCE = Reference(
    binary_cross_entropy_with_logits_torch,
    binary_cross_entropy_with_logits_jax,
    options=binary_cross_entropy_with_logits_options,
)


@oracle_for(BinaryCrossEntropyWithLogits, reference=BINARY_CROSS_ENTROPY_WITH_LOGITS_REFERENCE)
def binary_cross_entropy_with_logits(draw: st.DrawFn) -> Case:
    """Every reduction; no, one, zero and several weights; targets in [0, 1], and 0 and 1 alone."""
    shape = draw(rows()), draw(widths(len(WEIGHTS)))
    loss = BinaryCrossEntropyWithLogits(
        draw(st.sampled_from(("mean", "sum", "none"))), draw(st.sampled_from((None, 2.5, 0.0, WEIGHTS[: shape[1]])))
    )
    return BINARY_CROSS_ENTROPY_WITH_LOGITS_REFERENCE.case(
        manual_loss(loss),
        {"y": real(*shape), "target": draw(st.sampled_from((shares(*shape), answers(*shape))))},
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )


def softmax_cross_entropy_options(loss: SoftmaxCrossEntropy) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"reduction": loss.reduction}


def softmax_cross_entropy_torch(y: Tensor, target: Tensor, reduction: str) -> Tensor:
    """torch's mean over no rows is NaN, manual_bp's is 0."""
    if reduction != "mean":
        return F.cross_entropy(y, target, reduction=reduction)
    return F.cross_entropy(y, target, reduction="sum") / max(len(y), 1)


def softmax_cross_entropy_jax(y: JaxArray, target: JaxArray, reduction: str) -> JaxArray:
    """−Σ y* log softmax(y) by row."""
    log_a = jax.nn.log_softmax(y, axis=1)
    if target.ndim == 1:
        each = -jnp.where(target[:, None] == jnp.arange(y.shape[1])[None, :], log_a, 0).sum(axis=1)
    else:
        each = -(target * log_a).sum(axis=1)
    if reduction == "none":
        return each
    return each.sum() if reduction == "sum" else each.sum() / max(y.shape[0], 1)


SOFTMAX_CROSS_ENTROPY_REFERENCE = Reference(
    softmax_cross_entropy_torch, softmax_cross_entropy_jax, options=softmax_cross_entropy_options
)


@oracle_for(SoftmaxCrossEntropy, reference=SOFTMAX_CROSS_ENTROPY_REFERENCE)
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
    # A weight of 0 times a logarithm of −∞ is not defined, so −∞ comes with class indices alone.
    y = real(n_rows, n_classes, infinite="entries" if len(target.shape) == 1 else None)
    return SOFTMAX_CROSS_ENTROPY_REFERENCE.case(
        manual_loss(loss),
        {"y": y, "target": target},
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )


def cross_entropy_options(loss: CrossEntropy) -> Mapping[str, Hashable]:
    """What the references need to know of the loss; no index ignored is torch's −100, a float so that JAX traces it."""
    return {
        "reduction": loss.reduction,
        "weights": loss.class_weights,
        "ignored": -100.0 if loss.ignore_index is None else float(loss.ignore_index),
        "smoothing": loss.smoothing,
        "temperature": loss.temperature,
    }


def classes(loss: CrossEntropy, *shape: int, below: int) -> Drawn:
    """Class indices, and among them the one that is ignored."""
    low = 0 if loss.ignore_index is None else min(loss.ignore_index, 0)
    return Drawn(shape, lambda rng, shape, _: rng.integers(low, below, shape), special=False)


def drawn_probabilities(shape: tuple[int, ...]) -> tuple[Drawn, Drawn]:
    """Targets of the shape of y: along the classes they sum to one, or to anything."""
    if len(shape) == 2:
        return probabilities(*shape), nonnegative(*shape)
    return Drawn(shape, lambda rng, shape, _: _normalized(rng.exponential(size=shape)), False), nonnegative(*shape)


def _normalized(x: Any) -> Any:
    return x / x.sum(axis=1, keepdims=True)


def cross_entropy_torch(
    y: Tensor,
    target: Tensor,
    reduction: str,
    weights: tuple[float, ...] | None,
    ignored: float,
    smoothing: float,
    temperature: float,
) -> Tensor:
    """torch knows no temperature, and its mean over nothing is NaN, manual_bp's is 0."""
    weight = y.new_ones(y.shape[1]) if weights is None else y.new_tensor(weights)
    if target.dtype.is_floating_point:
        total = target.numel() / target.shape[1]
    else:
        total = weight[target[target != ignored]].sum()
    if reduction == "mean" and total == 0:
        reduction = "sum"
    return F.cross_entropy(
        y / temperature, target, weight, ignore_index=int(ignored), reduction=reduction, label_smoothing=smoothing
    )


def cross_entropy_jax(
    y: JaxArray,
    target: JaxArray,
    reduction: str,
    weights: tuple[float, ...] | None,
    ignored: float,
    smoothing: float,
    temperature: float,
) -> JaxArray:
    """−Σ w q log softmax(y/T) over the classes, the last axis here."""
    log_a = jax.nn.log_softmax(jnp.moveaxis(y, 1, -1) / temperature, axis=-1)
    n_classes = y.shape[1]
    w = jnp.ones(n_classes, y.dtype) if weights is None else jnp.array(weights, y.dtype)
    if target.ndim == y.ndim:
        q, counts = jnp.moveaxis(target, 1, -1), jnp.ones((y.shape[0], *y.shape[2:]), y.dtype)
        total: JaxArray = counts.sum()
    else:
        q = (target[..., None] == jnp.arange(n_classes)).astype(y.dtype)
        counts = (target != ignored).astype(y.dtype)
        total = ((q * w).sum(-1) * counts).sum()
    q = (1 - smoothing) * q + smoothing / n_classes
    # Of a class that is not asked for nothing counts, nor of an ignored row, though the logarithm is −∞.
    terms = w * q * (log_a if target.ndim == y.ndim else jnp.where(q == 0, 0, log_a))
    each = jnp.where(counts == 0, 0, -terms.sum(-1))
    if reduction == "none":
        return each
    return each.sum() / jnp.where(total == 0, 1, total) if reduction == "mean" else each.sum()


CROSS_ENTROPY_REFERENCE = Reference(cross_entropy_torch, cross_entropy_jax, options=cross_entropy_options)


@oracle_for(CrossEntropy, reference=CROSS_ENTROPY_REFERENCE)
def cross_entropy(draw: st.DrawFn) -> Case:
    """All options together: positions, weights (also all zero), ignored rows (also all), ε from 0 to 1, T."""
    n_classes = draw(widths(len(WEIGHTS)))
    positions = draw(rows()), *draw(st.sampled_from(((), (2,), (1, 3))))
    loss = CrossEntropy(
        draw(st.sampled_from(("mean", "sum", "none"))),
        draw(st.sampled_from((None, WEIGHTS[:n_classes], (0.0,) * n_classes))),
        draw(st.sampled_from((None, -1, 0))),
        draw(st.sampled_from((0.0, 0.1, 1.0))),
        draw(st.sampled_from((1.0, 2.0, 0.3))),
    )
    shape = positions[0], n_classes, *positions[1:]
    if loss.ignore_index is None:
        others: tuple[Drawn, ...] = drawn_probabilities(shape)
    else:
        others = (constant(np.full(positions, loss.ignore_index)),)
    target = draw(st.sampled_from((classes(loss, *positions, below=n_classes), *others)))
    # An infinite loss times a weight of 0 is not defined.
    is_defined = target.shape == positions and loss.smoothing < 1 and 0 not in (loss.class_weights or ())
    infinite: Infinite | None = "entries" if is_defined else None
    return CROSS_ENTROPY_REFERENCE.case(
        manual_loss(loss),
        {"y": real(*shape, infinite=infinite), "target": target},
        # No weights are weights of one: JAX traces both at once.
        options={**cross_entropy_options(loss), "weights": loss.class_weights or (1.0,) * n_classes},
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )
