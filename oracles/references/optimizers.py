"""Reference cases of the optimizers: whole runs, which are compared in their results alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from manual_bp import SGD, Adam, AdamW, Clipped, Optimizer
from oracles.adapters.functions import manual
from oracles.constants import MAX_EXTENT
from oracles.lazy_modules import JaxArray, Tensor, jax, jnp, torch
from oracles.options import HALF_NAMES
from oracles.registry import Case, Reference, oracle_for
from oracles.rule import Array, Rule
from oracles.strategies import real, rows, widths

STEPS = (1, 2, 5, 50)
# Steps up to which parameters are stored in 16 bits. In more, each update may be lost whole: the errors add up.
MOST_HALF_STEPS = 5


def run_of(
    draw: st.DrawFn,
    optimizer: Optimizer,
    reference: Reference,
) -> Case:
    """A run of so many steps of an optimizer on two parameters, with gradients drawn for each step."""
    # No long axes: every step is elementwise, and JAX takes a second to trace a run of many steps at each new shape.
    n, m, steps = draw(rows(MAX_EXTENT)), draw(widths(MAX_EXTENT)), draw(st.sampled_from(STEPS))
    primals = {"W": real(n, m), "b": real(1, m), "dW": real(steps, n, m), "db": real(steps, 1, m)}
    return reference.case(optimizer_run(optimizer), primals)


def optimizer_run(optimizer: Optimizer) -> Rule:
    """Adapt a run to a Rule over ``W``, ``b`` and their gradients, step by step; it has no cotangents.

    A longer run in 16 bits keeps its parameters in float32, as training in mixed precision does.
    """

    def forward(W: Array, b: Array, dW: Array, db: Array) -> tuple[tuple[Array, Array], None]:
        dtypes = {"W": W.dtype, "b": b.dtype}
        is_long = W.dtype.name in HALF_NAMES and len(dW) > MOST_HALF_STEPS
        W, b, dW, db = (a.astype(np.float32) if is_long else a for a in (W, b, dW, db))
        params = {"W": W, "b": b}
        state = optimizer.init(params)
        for grads in zip(dW, db, strict=True):
            params, state = optimizer.step(params, dict(zip(params, grads, strict=True)), state)
        final = {n: a.astype(dtypes[n]) if is_long else a for n, a in params.items()}
        return (final["W"], final["b"]), None

    rule = manual(forward, lambda cache, delta: {}, name=repr(optimizer))
    return replace(rule, implementation=optimizer, adapt=optimizer_run)


def torch_run(
    make: Callable[[list[Tensor]], Any],
    primals: tuple[Tensor, ...],
    before_step: Callable[[list[Tensor]], None] | None = None,
) -> Tensor:
    """Return the parameters after a run of torch's optimizer, with these gradients in turn."""
    W, b, dW, db = (p.detach().clone() for p in primals)
    parameters = [torch.nn.Parameter(W), torch.nn.Parameter(b)]
    optimizer = make(parameters)
    for grads in zip(dW, db, strict=True):
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.clone()
        if before_step:
            before_step(parameters)
        optimizer.step()
    return tuple(p.detach() for p in parameters)


def jax_run(
    step: Callable[[JaxArray, JaxArray, JaxArray], tuple[JaxArray, JaxArray]],
    primals: tuple[JaxArray, ...],
    state: JaxArray,
) -> JaxArray:
    """Return the parameters after a scan of ``step(params, state, grads) -> (params, state)``."""

    def one_step(carry: JaxArray, grads: JaxArray) -> tuple[JaxArray, None]:
        params, state = carry
        return step(params, state, grads), None

    # A run has no pullback here, and tracing the derivative of a scan takes several times as long as the scan.
    W, b, dW, db = map(jax.lax.stop_gradient, primals)
    (params, _), _ = jax.lax.scan(one_step, ((W, b), state), (dW, db))
    return params


def sgd_options(optimizer: SGD) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {
        "learning_rate": optimizer.learning_rate,
        "momentum": optimizer.momentum,
        "nesterov": optimizer.nesterov,
    }


def sgd_torch(
    W: Tensor, b: Tensor, dW: Tensor, db: Tensor, learning_rate: float, momentum: float = 0.0, nesterov: bool = False
) -> Tensor:
    """torch.optim.SGD."""
    return torch_run(lambda p: torch.optim.SGD(p, learning_rate, momentum, nesterov=nesterov), (W, b, dW, db))


def sgd_jax(
    W: JaxArray,
    b: JaxArray,
    dW: JaxArray,
    db: JaxArray,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> JaxArray:
    """(17), (18), (97) and (98) as in the derivation."""

    def step(params: JaxArray, v: JaxArray, grads: JaxArray) -> tuple[JaxArray, JaxArray]:
        v = jax.tree.map(lambda v, g: momentum * v + g, v, grads)
        down = jax.tree.map(lambda v, g: g + momentum * v, v, grads) if nesterov else v
        return jax.tree.map(lambda p, d: p - learning_rate * d, params, down), v

    return jax_run(step, (W, b, dW, db), (jnp.zeros_like(W), jnp.zeros_like(b)))


SGD_REFERENCE = Reference(sgd_torch, sgd_jax, options=sgd_options)


@oracle_for(SGD, reference=SGD_REFERENCE, pullback=False)
def sgd(draw: st.DrawFn) -> Case:
    """Runs at several rates, without momentum and with much and little of both kinds."""
    momentum, nesterov = draw(st.sampled_from(((0.0, False), (0.9, False), (0.5, True), (0.99, True))))
    optimizer = SGD(draw(st.sampled_from((0.1, 1.0, 1e-3))), momentum, nesterov)
    return run_of(draw, optimizer, SGD_REFERENCE)


def adam_options(optimizer: Any) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {name: getattr(optimizer, name) for name in ("learning_rate", "beta1", "beta2", "epsilon")}


def adam_torch(
    W: Tensor, b: Tensor, dW: Tensor, db: Tensor, learning_rate: float, beta1: float, beta2: float, epsilon: float
) -> Tensor:
    """torch.optim.Adam."""
    return torch_run(lambda p: torch.optim.Adam(p, learning_rate, (beta1, beta2), epsilon), (W, b, dW, db))


def adam_jax(
    W: JaxArray,
    b: JaxArray,
    dW: JaxArray,
    db: JaxArray,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float = 0.0,
) -> JaxArray:
    """(99), (100) and (101) as in the derivation, β₁ᵗ and β₂ᵗ multiplied up."""

    def step(params: JaxArray, state: JaxArray, grads: JaxArray) -> tuple[JaxArray, JaxArray]:
        mean, square, power1, power2 = state
        mean = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, mean, grads)
        square = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g**2, square, grads)
        power1, power2 = beta1 * power1, beta2 * power2

        def down(p: JaxArray, m: JaxArray, v: JaxArray) -> JaxArray:
            move = learning_rate * (m / (1 - power1)) / (jnp.sqrt(v / (1 - power2)) + epsilon)
            return (1 - learning_rate * weight_decay) * p - move

        return jax.tree.map(down, params, mean, square), (mean, square, power1, power2)

    zeros, one = (jnp.zeros_like(W), jnp.zeros_like(b)), jnp.ones((), W.dtype)
    return jax_run(step, (W, b, dW, db), (zeros, zeros, one, one))


ADAM_REFERENCE = Reference(adam_torch, adam_jax, options=adam_options)


@oracle_for(Adam, reference=ADAM_REFERENCE, pullback=False)
def adam(draw: st.DrawFn) -> Case:
    """Runs with the defaults, without memory of either moment, and with an ε that counts."""
    optimizer = Adam(*draw(st.sampled_from(((), (0.1,), (0.1, 0.0), (0.1, 0.9, 0.0), (1e-2, 0.5, 0.75, 0.1)))))
    return run_of(draw, optimizer, ADAM_REFERENCE)


def adamw_options(optimizer: AdamW) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {**adam_options(optimizer), "weight_decay": optimizer.weight_decay}


def adamw_torch(
    W: Tensor,
    b: Tensor,
    dW: Tensor,
    db: Tensor,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> Tensor:
    """torch.optim.AdamW."""

    def make(parameters: Tensor) -> Tensor:
        return torch.optim.AdamW(parameters, learning_rate, (beta1, beta2), epsilon, weight_decay=weight_decay)

    return torch_run(make, (W, b, dW, db))


ADAMW_REFERENCE = Reference(adamw_torch, adam_jax, options=adamw_options)


@oracle_for(AdamW, reference=ADAMW_REFERENCE, pullback=False)
def adamw(draw: st.DrawFn) -> Case:
    """Runs with the defaults, without decay, and with much of it and no memory."""
    optimizer = AdamW(*draw(st.sampled_from(((), (0.1,), (0.1, 0.9, 0.99, 1e-8, 0.0), (0.1, 0.0, 0.0, 1e-3, 0.5)))))
    return run_of(draw, optimizer, ADAMW_REFERENCE)


def clipped_options(optimizer: Clipped) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    inner: Any = optimizer.optimizer
    return {"learning_rate": inner.learning_rate, "max_norm": optimizer.max_norm}


def clipped_torch(W: Tensor, b: Tensor, dW: Tensor, db: Tensor, learning_rate: float, max_norm: float) -> Tensor:
    """Not clip_grad_norm_, which adds 1e-6 to the norm."""

    def clip(parameters: Tensor) -> None:
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        for parameter in parameters:
            parameter.grad = parameter.grad * torch.clamp(max_norm / norm, max=1.0)

    return torch_run(lambda p: torch.optim.SGD(p, learning_rate), (W, b, dW, db), clip)


def clipped_jax(
    W: JaxArray, b: JaxArray, dW: JaxArray, db: JaxArray, learning_rate: float, max_norm: float
) -> JaxArray:
    """(102) as in the derivation; a norm of 0 divides nothing."""

    def step(params: JaxArray, state: JaxArray, grads: JaxArray) -> tuple[JaxArray, JaxArray]:
        norm = jnp.sqrt(sum((g * g).sum() for g in grads))
        shortened = jnp.where(norm <= max_norm, 1, max_norm / norm)
        return jax.tree.map(lambda p, g: p - learning_rate * (g * shortened), params, grads), state

    return jax_run(step, (W, b, dW, db), jnp.zeros((), W.dtype))


CLIPPED_REFERENCE = Reference(clipped_torch, clipped_jax, options=clipped_options)


@oracle_for(Clipped, reference=CLIPPED_REFERENCE, pullback=False)
def clipped(draw: st.DrawFn) -> Case:
    """Runs of plain descent, all, some or none of whose gradients are longer than the largest norm."""
    optimizer = Clipped(SGD(0.1), draw(st.sampled_from((1.0, 3.0, 1e-6, 1e9))))
    return run_of(draw, optimizer, CLIPPED_REFERENCE)
