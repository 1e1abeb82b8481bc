"""Gradient descent over epochs, on all rows or in minibatches, with early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Literal, TypeAlias

import numpy as np

from ._validation import require_count, require_real
from .network import value_and_grad
from .protocol import Array, Layer, Loss, Optimizer, Params

Stopped: TypeAlias = Literal["finished", "patience", "callback", "diverged", "interrupted"]


@dataclass(frozen=True)
class Progress:
    """The argument of `fit`'s callback after each epoch; `epoch` counts from 1."""

    epoch: int
    epochs: int
    loss: float
    validation_loss: float | None
    params: Params


@dataclass(frozen=True)
class FitResult:
    """The result of `fit`.

    Attributes:
        params, state: those of the last step; with `patience`, of the best epoch; if the run diverged, of the last
            epoch whose losses were finite.
        losses: the loss of each epoch over its minibatches, each with the parameters before its step.
        validation_losses: the validation loss of the parameters after each epoch.
        epochs: how many epochs were completed.
        stopped: why the run ended.
    """

    params: Params
    state: Params
    losses: tuple[float, ...]
    validation_losses: tuple[float, ...]
    epochs: int
    stopped: Stopped


@dataclass
class _Run:
    params: Params
    state: Params
    best: tuple[Params, Params]
    best_loss: float = inf
    stale: int = 0
    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)


def minibatches(n_rows: int, batch_size: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield arrays of row indices: every row once, in an order drawn from rng; the last array may be shorter.

    Args:
        n_rows: the number of rows, 0 or more.
        batch_size: the rows of a minibatch, 1 or more.
        rng: the generator of the order.

    Raises:
        ValueError, TypeError: if a count is not a positive integer.
    """
    if n_rows != 0:
        require_count(None, "minibatches", "n_rows", n_rows)
    require_count(None, "minibatches", "batch_size", batch_size)
    order = rng.permutation(n_rows)
    return (order[start : start + batch_size].copy() for start in range(0, n_rows, batch_size))


def fit(
    network: Layer,
    loss: Loss,
    params: Params,
    x: Array,
    target: Array,
    optimizer: Optimizer,
    *,
    epochs: int,
    state: Params | None = None,
    batch_size: int | None = None,
    rng: np.random.Generator | None = None,
    validation: tuple[Array, Array] | None = None,
    patience: int | None = None,
    min_improvement: float = 0.0,
    callback: Callable[[Progress], object] | None = None,
) -> FitResult:
    """Minimize the loss over the rows of x by gradient descent (17), (18).

    Args:
        network, loss, params, optimizer: what is trained; params are never written to.
        x, target: the rows, one or more.
        epochs: the number of passes over the rows.
        state: the optimizer's state of an earlier result, to continue from; None to start anew.
        batch_size: the rows of a minibatch, in an order drawn from `rng`; None takes one step per epoch on all rows.
        rng: the generator that a batch_size needs.
        validation: a pair (x, target); its loss is then the one that `patience` watches.
        patience: stop after so many epochs in a row that did not lower the best loss by more than `min_improvement`.
        callback: called after each epoch; the run stops if it returns True.

    Returns:
        A `FitResult`. A loss that is not finite stops the run as "diverged", Ctrl-C stops it as "interrupted".

    Raises:
        ValueError, TypeError: for wrong arguments, and what the layers raise.

    Source: docs/derivation.md, eq. (17)–(18).
    """
    _require_arguments(x, target, epochs, batch_size, rng, patience, min_improvement)
    state = optimizer.init(params) if state is None else state
    run = _Run(params, state, best=(params, state))
    stopped: Stopped = "finished"
    try:
        for epoch in range(1, epochs + 1):
            last = _epoch(run, network, loss, x, target, optimizer, batch_size, rng, validation)
            if last is None:
                stopped = "diverged"
                break
            _record(run, *last, min_improvement)
            if callback and callback(Progress(epoch, epochs, *last, run.params)) is True:
                stopped = "callback"
                break
            if patience is not None and run.stale >= patience:
                stopped = "patience"
                break
    except KeyboardInterrupt:
        stopped = "interrupted"
    final = (run.params, run.state) if patience is None else run.best
    return FitResult(*final, tuple(run.losses), tuple(run.validation_losses), len(run.losses), stopped)


# A run that diverges overflows before it stops, and is reported as "diverged": a warning would repeat that.
@np.errstate(over="ignore", invalid="ignore")
def _epoch(
    run: _Run,
    network: Layer,
    loss: Loss,
    x: Array,
    target: Array,
    optimizer: Optimizer,
    batch_size: int | None,
    rng: np.random.Generator | None,
    validation: tuple[Array, Array] | None,
) -> tuple[float, float | None] | None:
    """Step over all rows once; return the loss over the minibatches and the validation loss after them.

    If either is not finite, return None and leave the run as it was.
    """
    before = run.params, run.state
    total = 0.0
    mean = getattr(loss, "reduction", "mean") == "mean"
    for rows in _batches(len(x), batch_size, rng):
        batch = x[rows]
        value, grads = value_and_grad(network, loss, run.params, batch, target[rows])
        # A mean over the epoch weighs each minibatch by its rows, since the last one may be shorter.
        total += float(value) * (len(batch) / len(x) if mean else 1)
        if not isfinite(total):
            break
        run.params, run.state = optimizer.step(run.params, grads, run.state)
    validation_loss = None
    if validation is not None and isfinite(total):
        y, _ = network.forward(run.params, validation[0])
        validation_loss = float(loss.forward(y, validation[1])[0])
    if isfinite(total) and (validation_loss is None or isfinite(validation_loss)):
        return total, validation_loss
    run.params, run.state = before
    return None


def _batches(n_rows: int, batch_size: int | None, rng: np.random.Generator | None) -> Iterator[Array | slice]:
    """Yield indices of rows; a slice for all of them, which copies nothing."""
    if batch_size is None or rng is None:
        return iter((slice(None),))
    return minibatches(n_rows, batch_size, rng)


def _record(run: _Run, loss: float, validation_loss: float | None, min_improvement: float) -> None:
    """Record the losses of an epoch, and whether they are the best so far."""
    run.losses.append(loss)
    if validation_loss is not None:
        run.validation_losses.append(validation_loss)
    value = loss if validation_loss is None else validation_loss
    if value < run.best_loss - min_improvement:
        run.best_loss, run.best, run.stale = value, (run.params, run.state), 0
    else:
        run.stale += 1


def _require_arguments(
    x: Array,
    target: Array,
    epochs: int,
    batch_size: int | None,
    rng: object,
    patience: int | None,
    min_improvement: float,
) -> None:
    require_count(None, "fit", "epochs", epochs)
    if len(x) != len(target):
        raise ValueError(f"fit: target: expected {len(x)} rows, as x has, got {len(target)}")
    if len(x) == 0:
        raise ValueError("fit: x: expected one row or more, got 0")
    if batch_size is not None:
        require_count(None, "fit", "batch_size", batch_size)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(
                f"fit: rng: expected a numpy.random.Generator, since there is a batch_size, got {type(rng).__name__}"
            )
    if patience is not None:
        require_count(None, "fit", "patience", patience)
    require_real(None, "fit", "min_improvement", min_improvement)
    if min_improvement < 0:
        raise ValueError(f"fit: min_improvement: expected 0 or more, got {min_improvement}")
