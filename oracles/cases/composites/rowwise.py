"""What torch and JAX call a `Rowwise`, and what to draw for it: the reference of the layer inside, on rows."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from hypothesis import strategies as st

from manual_bp import Layer, Linear, ReLU, Rowwise, Sequential, Softmax
from oracles.adapters.functions import manual_layer
from oracles.cases.routing import Link, applied, link, parameters_of, untupled
from oracles.registry import Case, oracle_for
from oracles.strategies import Drawn, real, rows, widths


@oracle_for(Rowwise)
def rowwise(draw: st.DrawFn) -> Case:
    """A layer, an activation and a network on rows, on sequences and on images."""
    n, n_out = draw(widths(4)), draw(widths(4))
    inside: tuple[Layer, ...] = (
        Linear(n, n_out),
        Softmax(),
        Sequential(Linear(n, 3, bias=False), ReLU(), Linear(3, n_out)),
    )
    layer = Rowwise(draw(st.sampled_from(inside)))
    shape = (draw(rows(3)), *draw(st.sampled_from(((2,), (), (3,), (2, 2)))))
    return Case(
        manual_layer(layer),
        {"z": real(*shape, n), **parameters(layer)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(layer),
        batched=("z",),
        kinks="declared",
    )


def parameters(layer: Rowwise) -> dict[str, Drawn]:
    """Those of the layer inside, under its names."""
    return parameters_of(layer.f)


def options(layer: Rowwise) -> Mapping[str, Link]:
    """The layer inside."""
    return {"f": link(layer.f)}


def torch_reference(z: Any, f: Link, **primals: Any) -> Any:
    """The layer inside, on z with all axes but the last made one."""
    return _on_rows("torch_reference", z, f, primals)


def jax_reference(z: Any, f: Link, **primals: Any) -> Any:
    """The layer inside, on z with all axes but the last made one."""
    return _on_rows("jax_reference", z, f, primals)


def _on_rows(reference: str, z: Any, f: Link, primals: Mapping[str, Any]) -> Any:
    y, *beside = applied(reference, f, z.reshape(prod(z.shape[:-1]), z.shape[-1]), primals)
    return untupled((y.reshape(*z.shape[:-1], y.shape[-1]), *beside))
