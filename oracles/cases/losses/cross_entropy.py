"""What torch and JAX call `CrossEntropy`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from manual_bp import CrossEntropy
from oracles.adapters.functions import manual_loss
from oracles.registry import Case, oracle_for
from oracles.strategies import Drawn, constant, nonnegative, probabilities, real, rows, widths

WEIGHTS = (0.5, 2.0, 0.0, 1.25, 3.0)


@oracle_for(CrossEntropy)
def cross_entropy(draw: st.DrawFn) -> Case:
    """Every option beside every other: places, weights (all zero, too), rows ignored (all, too), ε from 0 to 1, T."""
    n_classes = draw(widths(len(WEIGHTS)))
    places = draw(rows()), *draw(st.sampled_from(((), (2,), (1, 3))))
    loss = CrossEntropy(
        draw(st.sampled_from(("mean", "sum", "none"))),
        draw(st.sampled_from((None, WEIGHTS[:n_classes], (0.0,) * n_classes))),
        draw(st.sampled_from((None, -1, 0))),
        draw(st.sampled_from((0.0, 0.1, 1.0))),
        draw(st.sampled_from((1.0, 2.0, 0.3))),
    )
    shape = places[0], n_classes, *places[1:]
    if loss.ignore_index is None:
        others: tuple[Drawn, ...] = drawn_probabilities(shape)
    else:
        others = (constant(np.full(places, loss.ignore_index)),)
    target = draw(st.sampled_from((classes(loss, *places, below=n_classes), *others)))
    return Case(
        manual_loss(loss),
        {"y": real(*shape), "target": target},
        torch=torch_reference,
        jax=jax_reference,
        # No weights are weights of one: JAX traces both at once.
        options={**options(loss), "weights": loss.class_weights or (1.0,) * n_classes},
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )


def options(loss: CrossEntropy) -> Mapping[str, Hashable]:
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


def torch_reference(
    y: Any,
    target: Any,
    reduction: str,
    weights: tuple[float, ...] | None,
    ignored: float,
    smoothing: float,
    temperature: float,
) -> Any:
    """torch knows no temperature, and its mean over nothing is NaN where ours is 0."""
    import torch
    from torch.nn.functional import cross_entropy

    weight = torch.ones(y.shape[1], dtype=y.dtype) if weights is None else torch.tensor(weights, dtype=y.dtype)
    if target.dtype.is_floating_point:
        total = target.numel() / target.shape[1]
    else:
        total = weight[target[target != ignored]].sum()
    if reduction == "mean" and total == 0:
        reduction = "sum"
    return cross_entropy(
        y / temperature, target, weight, ignore_index=int(ignored), reduction=reduction, label_smoothing=smoothing
    )


def jax_reference(
    y: Any,
    target: Any,
    reduction: str,
    weights: tuple[float, ...] | None,
    ignored: float,
    smoothing: float,
    temperature: float,
) -> Any:
    """−Σ w q log softmax(y/T) over the classes, the last axis here."""
    import jax
    import jax.numpy as jnp

    log_a = jax.nn.log_softmax(jnp.moveaxis(y, 1, -1) / temperature, axis=-1)
    n_classes = y.shape[1]
    w = jnp.ones(n_classes, y.dtype) if weights is None else jnp.array(weights, y.dtype)
    if target.ndim == y.ndim:
        q, counts = jnp.moveaxis(target, 1, -1), jnp.ones((y.shape[0], *y.shape[2:]), y.dtype)
        total: Any = counts.sum()
    else:
        q = (target[..., None] == jnp.arange(n_classes)).astype(y.dtype)
        counts = (target != ignored).astype(y.dtype)
        total = ((q * w).sum(-1) * counts).sum()
    q = (1 - smoothing) * q + smoothing / n_classes
    each = -(w * q * log_a).sum(-1) * counts
    if reduction == "none":
        return each
    return each.sum() / jnp.where(total == 0, 1, total) if reduction == "mean" else each.sum()
