"""What torch and JAX call `Adam`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import Adam
from oracles.cases.optimizers import jax_run, run_of, torch_run
from oracles.registry import Case, oracle_for


@oracle_for(Adam, pullback=False)
def adam(draw: st.DrawFn) -> Case:
    """Runs with the defaults, without memory of either moment, and with an ε that counts."""
    optimizer = Adam(*draw(st.sampled_from(((), (0.1,), (0.1, 0.0), (0.1, 0.9, 0.0), (1e-2, 0.5, 0.75, 0.1)))))
    return run_of(draw, optimizer, torch_reference, jax_reference, options(optimizer))


def options(optimizer: Any) -> Mapping[str, Hashable]:
    """What the references need to know of the optimizer."""
    return {name: getattr(optimizer, name) for name in ("learning_rate", "beta1", "beta2", "epsilon")}


def torch_reference(
    W: Any, b: Any, dW: Any, db: Any, learning_rate: float, beta1: float, beta2: float, epsilon: float
) -> Any:
    """torch.optim.Adam."""
    import torch

    return torch_run(lambda p: torch.optim.Adam(p, learning_rate, (beta1, beta2), epsilon), (W, b, dW, db))


def jax_reference(
    W: Any,
    b: Any,
    dW: Any,
    db: Any,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float = 0.0,
) -> Any:
    """(99), (100) and (101) as they stand, β₁ᵗ and β₂ᵗ multiplied up."""
    import jax
    import jax.numpy as jnp

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        mean, square, power1, power2 = state
        mean = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, mean, grads)
        square = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g**2, square, grads)
        power1, power2 = beta1 * power1, beta2 * power2

        def down(p: Any, m: Any, v: Any) -> Any:
            move = learning_rate * (m / (1 - power1)) / (jnp.sqrt(v / (1 - power2)) + epsilon)
            return (1 - learning_rate * weight_decay) * p - move

        return jax.tree.map(down, params, mean, square), (mean, square, power1, power2)

    zeros, one = (jnp.zeros_like(W), jnp.zeros_like(b)), jnp.ones((), W.dtype)
    return jax_run(step, (W, b, dW, db), (zeros, zeros, one, one))
