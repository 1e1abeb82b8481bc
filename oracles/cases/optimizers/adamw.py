"""What torch and JAX call `AdamW`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import AdamW
from oracles.cases.optimizers import adam, run_of, torch_run
from oracles.registry import Case, oracle_for


@oracle_for(AdamW, pullback=False)
def adamw(draw: st.DrawFn) -> Case:
    """Runs with the defaults, without decay, and with much of it and no memory."""
    optimizer = AdamW(*draw(st.sampled_from(((), (0.1,), (0.1, 0.9, 0.99, 1e-8, 0.0), (0.1, 0.0, 0.0, 1e-3, 0.5)))))
    return run_of(draw, optimizer, torch_reference, jax_reference, options(optimizer))


def options(optimizer: AdamW) -> Mapping[str, Hashable]:
    """What the references need to know of the optimizer."""
    return {**adam.options(optimizer), "weight_decay": optimizer.weight_decay}


def torch_reference(
    W: Any,
    b: Any,
    dW: Any,
    db: Any,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> Any:
    """torch.optim.AdamW."""
    import torch

    def make(parameters: Any) -> Any:
        return torch.optim.AdamW(parameters, learning_rate, (beta1, beta2), epsilon, weight_decay=weight_decay)

    return torch_run(make, (W, b, dW, db))


jax_reference = adam.jax_reference
