"""Gradient descent over epochs, whole or in minibatches, with early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Literal, TypeAlias

import numpy as np

from .network import value_and_grad
from .protocol import Array, Layer, Loss, Optimizer, Params
from .validation import require_count, require_real

Stopped: TypeAlias = Literal["finished", "patience", "callback", "diverged", "interrupted"]


@dataclass(frozen=True)
class Progress:
    """What the callback is told after each epoch; `epoch` counts from 1."""

    epoch: int
    epochs: int
    loss: float
    validation_loss: float | None
    params: Params


@dataclass(frozen=True)
class FitResult:
    """What a run of `fit` leaves.

    `params` and `state` are those of the last step; with `patience`, of the best epoch; and where the run
    diverged, of the last epoch whose losses were finite. `losses[i]` is the loss of epoch i over its
    minibatches, each with the parameters of its moment; `validation_losses[i]` that of the parameters
    after it. `epochs` counts those completed. `stopped` says why the run ended.
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
    """Yield arrays of row indices, every row once in an order drawn from rng; the last may be shorter."""
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
    """Minimize the loss over the rows of x by (17) and (18), and return what came of it.

    The optimizer starts anew, or from the `state` of an earlier result, to go on where that ended.
    Without `batch_size` each epoch is one step on all rows; with it, steps on minibatches in an order
    drawn from `rng`. With `patience` the run stops after that many epochs in a row which failed to lower
    the best loss by more than `min_improvement`; the loss watched is that of `validation`, a pair (x,
    target), where there is one. A callback that returns True stops the run. A loss that is not finite
    stops it as "diverged", and Ctrl-C as "interrupted" with what it has. The given params are never
    written to.

    Raises: ValueError or TypeError for arguments that make no sense, and whatever the layers raise.
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
            _watch(run, *last, min_improvement)
            if callback and callback(Progress(epoch, epochs, *last, run.params)) is True:
                stopped = "callback"
                break
            if patience is not None and run.stale >= patience:
                stopped = "patience"
                break
    except KeyboardInterrupt:
        stopped = "interrupted"
    kept = (run.params, run.state) if patience is None else run.best
    return FitResult(*kept, tuple(run.losses), tuple(run.validation_losses), len(run.losses), stopped)


# A run that diverges overflows on its way, and is reported as such: no warning need say it too.
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
    """Step over all rows once; return the loss on the way and the validation loss at the end.

    Where either is not finite, return None and leave the run as it was.
    """
    before = run.params, run.state
    total = 0.0
    mean = getattr(loss, "reduction", "mean") == "mean"
    for rows in _batches(len(x), batch_size, rng):
        batch = x[rows]
        value, grads = value_and_grad(network, loss, run.params, batch, target[rows])
        total += float(value) * (len(batch) / len(x) if mean else 1)
        if not isfinite(total):
            break
        run.params, run.state = optimizer.step(run.params, grads, run.state)
    validated = None
    if validation is not None and isfinite(total):
        y, _ = network.forward(run.params, validation[0])
        validated = float(loss.forward(y, validation[1])[0])
    if isfinite(total) and (validated is None or isfinite(validated)):
        return total, validated
    run.params, run.state = before
    return None


def _batches(n_rows: int, batch_size: int | None, rng: np.random.Generator | None) -> Iterator[Any]:
    """Yield indices of rows; a slice where all of them are taken, which copies nothing."""
    if batch_size is None or rng is None:
        return iter((slice(None),))
    return minibatches(n_rows, batch_size, rng)


def _watch(run: _Run, loss: float, validated: float | None, min_improvement: float) -> None:
    """Write down the losses of an epoch, and whether they are the best so far."""
    run.losses.append(loss)
    if validated is not None:
        run.validation_losses.append(validated)
    value = loss if validated is None else validated
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
        raise ValueError(f"fit: target: expected {len(x)} rows, those of x, got {len(target)}")
    if len(x) == 0:
        raise ValueError("fit: x: expected one row or more, got none")
    if batch_size is not None:
        require_count(None, "fit", "batch_size", batch_size)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"fit: rng: a batch_size needs a numpy.random.Generator, got {type(rng).__name__}")
    if patience is not None:
        require_count(None, "fit", "patience", patience)
    require_real(None, "fit", "min_improvement", min_improvement)
    if min_improvement < 0:
        raise ValueError(f"fit: min_improvement: expected 0 or more, got {min_improvement}")
