"""What torch and JAX call a `Parallel`, and what to draw for it: the branches' references, added or concatenated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import Identity, LeakyReLU, Linear, Parallel, Sequential, Sigmoid, Tanh
from oracles.adapters.functions import manual_layer
from oracles.cases.routing import Link, applied, beneath, link, parameters_of, untupled
from oracles.registry import Case, oracle_for
from oracles.strategies import Drawn, real, rows, widths


@oracle_for(Parallel)
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
    return Case(
        manual_layer(layer),
        {"z": real(draw(rows()), n), **parameters(layer)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(layer),
        batched=("z",),
        kinks="declared",
    )


def parameters(layer: Parallel) -> dict[str, Drawn]:
    """Those of every branch."""
    return {n: drawn for i, branch in enumerate(layer.branches) for n, drawn in parameters_of(branch, f"{i}.").items()}


def options(layer: Parallel) -> Mapping[str, Any]:
    """The branches and how they are joined."""
    return {"branches": tuple(map(link, layer.branches)), "axis": layer.axis}


def torch_reference(z: Any, branches: tuple[Link, ...], axis: int | None, **primals: Any) -> Any:
    """`sum`, or `torch.cat`."""
    import torch

    ys, beside = _each("torch_reference", z, branches, primals)
    return untupled((sum(ys[1:], ys[0]) if axis is None else torch.cat(ys, dim=axis), *beside))


def jax_reference(z: Any, branches: tuple[Link, ...], axis: int | None, **primals: Any) -> Any:
    """`sum`, or `jnp.concatenate`."""
    import jax.numpy as jnp

    ys, beside = _each("jax_reference", z, branches, primals)
    return untupled((sum(ys[1:], ys[0]) if axis is None else jnp.concatenate(ys, axis=axis), *beside))


def _each(
    reference: str, z: Any, branches: tuple[Link, ...], primals: Mapping[str, Any]
) -> tuple[list[Any], list[Any]]:
    """Return the branches' main outputs, and all side outputs."""
    came = [applied(reference, branch, z, beneath(primals, i)) for i, branch in enumerate(branches)]
    return [y for y, *_ in came], [part for _, *own in came for part in own]
