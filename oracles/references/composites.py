"""Reference cases of `Residual`, `Rowwise` and `Parallel`: the references of the layers inside, composed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import (
    Identity,
    Layer,
    LeakyReLU,
    Linear,
    Parallel,
    ReLU,
    Residual,
    Rowwise,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import JaxArray, Tensor, jnp, torch
from oracles.references._composition import Framework, Link, apply, link, own_primals, parameters_of
from oracles.registry import Case, Reference, oracle_for
from oracles.rule import one_or_tuple
from oracles.strategies import Drawn, real, rows, widths


def residual_parameters(layer: Residual) -> dict[str, Drawn]:
    """Those of the layer inside, under its names."""
    return parameters_of(layer.f)


def residual_options(layer: Residual) -> Mapping[str, Link]:
    """The layer inside."""
    return {"f": link(layer.f)}


def residual_torch(z: Tensor, f: Link, **primals: Tensor) -> Tensor:
    """z + f(z)."""
    return _around("torch", z, f, primals)


def residual_jax(z: JaxArray, f: Link, **primals: JaxArray) -> JaxArray:
    """z + f(z)."""
    return _around("jax", z, f, primals)


def _around(framework: Framework, z: Any, f: Link, primals: Mapping[str, Any]) -> Any:
    y, *side_outputs = apply(framework, f, z, primals)
    return one_or_tuple((z + y, *side_outputs))


RESIDUAL_REFERENCE = Reference(residual_torch, residual_jax, options=residual_options, parameters=residual_parameters)


@oracle_for(Residual, reference=RESIDUAL_REFERENCE)
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
    return RESIDUAL_REFERENCE.case(
        manual_layer(layer),
        {"z": real(draw(rows()), n), **residual_parameters(layer)},
        batched=("z",),
        kinks="declared",
    )


def rowwise_parameters(layer: Rowwise) -> dict[str, Drawn]:
    """Those of the layer inside, under its names."""
    return parameters_of(layer.f)


def rowwise_options(layer: Rowwise) -> Mapping[str, Link]:
    """The layer inside."""
    return {"f": link(layer.f)}


def rowwise_torch(z: Tensor, f: Link, **primals: Tensor) -> Tensor:
    """The layer inside, on z with all axes but the last made one."""
    return _on_rows("torch", z, f, primals)


def rowwise_jax(z: JaxArray, f: Link, **primals: JaxArray) -> JaxArray:
    """The layer inside, on z with all axes but the last made one."""
    return _on_rows("jax", z, f, primals)


def _on_rows(framework: Framework, z: Any, f: Link, primals: Mapping[str, Any]) -> Any:
    y, *side_outputs = apply(framework, f, z.reshape(math.prod(z.shape[:-1]), z.shape[-1]), primals)
    return one_or_tuple((y.reshape(*z.shape[:-1], y.shape[-1]), *side_outputs))


ROWWISE_REFERENCE = Reference(rowwise_torch, rowwise_jax, options=rowwise_options, parameters=rowwise_parameters)


@oracle_for(Rowwise, reference=ROWWISE_REFERENCE)
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
    return ROWWISE_REFERENCE.case(
        manual_layer(layer),
        {"z": real(*shape, n), **rowwise_parameters(layer)},
        batched=("z",),
        kinks="declared",
    )


def parallel_parameters(layer: Parallel) -> dict[str, Drawn]:
    """Those of every branch."""
    return {n: drawn for i, branch in enumerate(layer.branches) for n, drawn in parameters_of(branch, f"{i}.").items()}


def parallel_options(layer: Parallel) -> Mapping[str, Any]:
    """The branches and how they are joined."""
    return {"branches": tuple(map(link, layer.branches)), "axis": layer.axis}


def parallel_torch(z: Tensor, branches: tuple[Link, ...], axis: int | None, **primals: Tensor) -> Tensor:
    """`sum`, or `torch.cat`."""
    ys, side_outputs = _each("torch", z, branches, primals)
    return one_or_tuple((sum(ys[1:], ys[0]) if axis is None else torch.cat(ys, dim=axis), *side_outputs))


def parallel_jax(z: JaxArray, branches: tuple[Link, ...], axis: int | None, **primals: JaxArray) -> JaxArray:
    """`sum`, or `jnp.concatenate`."""
    ys, side_outputs = _each("jax", z, branches, primals)
    return one_or_tuple((sum(ys[1:], ys[0]) if axis is None else jnp.concatenate(ys, axis=axis), *side_outputs))


def _each(
    framework: Framework, z: Any, branches: tuple[Link, ...], primals: Mapping[str, Any]
) -> tuple[list[Any], list[Any]]:
    """Return the branches' main outputs, and all side outputs."""
    outputs = [apply(framework, branch, z, own_primals(primals, i)) for i, branch in enumerate(branches)]
    return [y for y, *_ in outputs], [part for _, *own in outputs for part in own]


PARALLEL_REFERENCE = Reference(parallel_torch, parallel_jax, options=parallel_options, parameters=parallel_parameters)


@oracle_for(Parallel, reference=PARALLEL_REFERENCE)
def parallel(draw: st.DrawFn) -> Case:
    """One to three branches, some without parameters, some composites, added and concatenated along the columns."""
    n, n_out = draw(widths(6)), draw(widths(6))
    axis = draw(st.sampled_from((None, -1, 1)))
    layer = draw(
        st.sampled_from(
            (
                Parallel(Linear(n, n_out), axis=axis),
                Parallel(Linear(n, n_out), Sequential(Linear(n, 2), Tanh(), Linear(2, n_out)), axis=axis),
                Parallel(Identity(), Tanh(), Sigmoid(), axis=axis),
                Parallel(LeakyReLU(), Parallel(Linear(n, n), Tanh()), axis=axis),
                Parallel(Identity(), Linear(n, n_out), axis=-1),
            )
        )
    )
    return PARALLEL_REFERENCE.case(
        manual_layer(layer),
        {"z": real(draw(rows()), n), **parallel_parameters(layer)},
        batched=("z",),
        kinks="declared",
    )
