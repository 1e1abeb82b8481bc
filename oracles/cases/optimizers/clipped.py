"""What torch and JAX call `Clipped`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import SGD, Clipped
from oracles.cases.optimizers import jax_run, run_of, torch_run
from oracles.registry import Case, oracle_for


@oracle_for(Clipped, pullback=False)
def clipped(draw: st.DrawFn) -> Case:
    """Runs of plain descent, all, some or none of whose gradients are longer than allowed."""
    optimizer = Clipped(SGD(0.1), draw(st.sampled_from((1.0, 3.0, 1e-6, 1e9))))
    return run_of(draw, optimizer, torch_reference, jax_reference, options(optimizer))


def options(optimizer: Clipped) -> Mapping[str, Hashable]:
    """What the references need to know of the optimizer."""
    inner: Any = optimizer.optimizer
    return {"learning_rate": inner.learning_rate, "max_norm": optimizer.max_norm}


def torch_reference(W: Any, b: Any, dW: Any, db: Any, learning_rate: float, max_norm: float) -> Any:
    """Not clip_grad_norm_, which adds 1e-6 to the norm."""
    import torch

    def clip(parameters: Any) -> None:
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        for parameter in parameters:
            parameter.grad = parameter.grad * torch.clamp(max_norm / norm, max=1.0)

    return torch_run(lambda p: torch.optim.SGD(p, learning_rate), (W, b, dW, db), clip)


def jax_reference(W: Any, b: Any, dW: Any, db: Any, learning_rate: float, max_norm: float) -> Any:
    """(102) as it stands; a norm of 0 divides nothing."""
    import jax
    import jax.numpy as jnp

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        norm = jnp.sqrt(sum((g * g).sum() for g in grads))
        shortened = jnp.where(norm > max_norm, max_norm / norm, 1)
        return jax.tree.map(lambda p, g: p - learning_rate * (g * shortened), params, grads), state

    return jax_run(step, (W, b, dW, db), jnp.zeros((), W.dtype))
