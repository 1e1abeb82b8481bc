"""What torch and JAX call `SGD`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import SGD
from oracles.cases.optimizers import jax_run, run_of, torch_run
from oracles.registry import Case, oracle_for


@oracle_for(SGD, pullback=False)
def sgd(draw: st.DrawFn) -> Case:
    """Runs at several rates, without momentum and with much and little of both kinds."""
    momentum, nesterov = draw(st.sampled_from(((0.0, False), (0.9, False), (0.5, True), (0.99, True))))
    optimizer = SGD(draw(st.sampled_from((0.1, 1.0, 1e-3))), momentum, nesterov)
    return run_of(draw, optimizer, torch_reference, jax_reference, options(optimizer))


def options(optimizer: SGD) -> Mapping[str, Hashable]:
    """What the references need to know of the optimizer."""
    return {
        "learning_rate": optimizer.learning_rate,
        "momentum": optimizer.momentum,
        "nesterov": optimizer.nesterov,
    }


def torch_reference(
    W: Any, b: Any, dW: Any, db: Any, learning_rate: float, momentum: float = 0.0, nesterov: bool = False
) -> Any:
    """torch.optim.SGD."""
    import torch

    return torch_run(lambda p: torch.optim.SGD(p, learning_rate, momentum, nesterov=nesterov), (W, b, dW, db))


def jax_reference(
    W: Any, b: Any, dW: Any, db: Any, learning_rate: float, momentum: float = 0.0, nesterov: bool = False
) -> Any:
    """(17), (18), (97) and (98) as they stand."""
    import jax
    import jax.numpy as jnp

    def step(params: Any, v: Any, grads: Any) -> tuple[Any, Any]:
        v = jax.tree.map(lambda v, g: momentum * v + g, v, grads)
        down = jax.tree.map(lambda v, g: g + momentum * v, v, grads) if nesterov else v
        return jax.tree.map(lambda p, d: p - learning_rate * d, params, down), v

    return jax_run(step, (W, b, dW, db), (jnp.zeros_like(W), jnp.zeros_like(b)))
