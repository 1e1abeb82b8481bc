"""Twins of `manual_bp.optimizers`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from oracles.adapters.functions import manual
from oracles.registry import Case
from oracles.rule import Array, Rule
from oracles.strategies import real, rows, widths

STEPS = (1, 2, 5, 50)


def run_of(
    draw: st.DrawFn,
    optimizer: Any,
    torch_reference: Callable[..., Any],
    jax_reference: Callable[..., Any],
    options: Mapping[str, Hashable],
) -> Case:
    """A run of so many steps of an optimizer on two parameters, with gradients drawn for each step."""
    n, m, steps = draw(rows()), draw(widths()), draw(st.sampled_from(STEPS))
    return Case(
        stepped(optimizer),
        {"W": real(n, m), "b": real(1, m), "dW": real(steps, n, m), "db": real(steps, 1, m)},
        torch=torch_reference,
        jax=jax_reference,
        options=options,
    )


def stepped(optimizer: Any) -> Rule:
    """Lift a run into a Rule over ``W``, ``b`` and their gradients, step by step; a run claims no gradient."""

    def forward(W: Array, b: Array, dW: Array, db: Array) -> tuple[tuple[Array, Array], None]:
        params = {"W": W, "b": b}
        state = optimizer.init(params)
        for grads in zip(dW, db, strict=True):
            params, state = optimizer.step(params, dict(zip(params, grads, strict=True)), state)
        return (params["W"], params["b"]), None

    rule = manual(forward, lambda cache, delta: {}, name=repr(optimizer))
    return replace(rule, implementation=optimizer, adapt=stepped)


def torch_run(make: Callable[[Any], Any], primals: Any, before_step: Callable[[Any], Any] | None = None) -> Any:
    """Return where an optimizer of torch's leads, on parameters that carry their gradients in turn."""
    import torch

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


def jax_run(step: Callable[[Any, Any, Any], tuple[Any, Any]], primals: Any, state: Any) -> Any:
    """Return where ``step(params, state, grads) -> (params, state)`` leads, each of two arrays or a tuple of pairs."""
    import jax

    def taken(carry: Any, grads: Any) -> tuple[Any, None]:
        params, state = carry
        return step(params, state, grads), None

    W, b, dW, db = primals
    (params, _), _ = jax.lax.scan(taken, ((W, b), state), (dW, db))
    return params
