"""What torch and JAX call `SGD`, and what to draw for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from manual_bp import SGD
from oracles.lifts.manual import manual
from oracles.registry import Case, oracle_for
from oracles.rule import Array, Rule
from oracles.strategies import real, rows, widths


@oracle_for(SGD, pullback=False)
def sgd(draw: st.DrawFn) -> Case:
    """One step on any matrix, at several rates."""
    optimizer = SGD(draw(st.sampled_from((0.1, 1.0, 1e-3))))
    shape = draw(rows()), draw(widths())
    return Case(
        stepped(optimizer),
        {"W": real(*shape), "grad": real(*shape)},
        torch=torch_reference,
        jax=jax_reference,
        options={"learning_rate": optimizer.learning_rate},
    )


def stepped(optimizer: SGD) -> Rule:
    """Lift one step into a Rule over ``W`` and ``grad``; a step claims no gradient."""

    def forward(W: Array, grad: Array) -> tuple[Array, None]:
        params, _ = optimizer.step({"W": W}, {"W": grad}, optimizer.init({"W": W}))
        return params["W"], None

    rule = manual(forward, lambda cache, delta: {}, name=repr(optimizer))
    return replace(rule, lifted=optimizer, relift=stepped)


def torch_reference(W: Any, grad: Any, learning_rate: float) -> Any:
    """torch.optim.SGD, on a parameter that carries this gradient."""
    import torch

    parameter = torch.nn.Parameter(W.detach().clone())
    parameter.grad = grad.detach().clone()
    torch.optim.SGD([parameter], lr=learning_rate).step()
    return parameter.detach()


def jax_reference(W: Any, grad: Any, learning_rate: float) -> Any:
    """(17) as it stands."""
    return W - learning_rate * grad
