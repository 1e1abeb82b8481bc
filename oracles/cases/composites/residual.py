"""What torch and JAX call a `Residual`, and what to draw for it: a sum with the reference of the layer inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import Layer, Linear, ReLU, Residual, Sequential, Softmax, Tanh
from oracles.adapters.functions import manual_layer
from oracles.cases.routing import Link, applied, link, parameters_of, untupled
from oracles.registry import Case, oracle_for
from oracles.strategies import Drawn, real, rows, widths


@oracle_for(Residual)
def residual(draw: st.DrawFn) -> Case:
    """Around an activation, a layer, a network, and a connection."""
    n, inner = draw(widths(6)), draw(widths(6))
    around: tuple[Layer, ...] = (
        Linear(n, n),
        Softmax(),
        Sequential(Linear(n, inner), ReLU(), Linear(inner, n, bias=False)),
        Residual(Sequential(Tanh(), Residual(Linear(n, n)))),
    )
    layer = Residual(draw(st.sampled_from(around)))
    return Case(
        manual_layer(layer),
        {"z": real(draw(rows()), n), **parameters(layer)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(layer),
        batched=("z",),
        kinks="declared",
    )


def parameters(layer: Residual) -> dict[str, Drawn]:
    """Those of the layer inside, under its names."""
    return parameters_of(layer.f)


def options(layer: Residual) -> Mapping[str, Link]:
    """The layer inside."""
    return {"f": link(layer.f)}


def torch_reference(z: Any, f: Link, **primals: Any) -> Any:
    """z + f(z)."""
    return _around("torch_reference", z, f, primals)


def jax_reference(z: Any, f: Link, **primals: Any) -> Any:
    """z + f(z)."""
    return _around("jax_reference", z, f, primals)


def _around(reference: str, z: Any, f: Link, primals: Mapping[str, Any]) -> Any:
    y, *beside = applied(reference, f, z, primals)
    return untupled((z + y, *beside))
