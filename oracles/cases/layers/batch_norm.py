"""What torch and JAX call `BatchNorm`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import BatchNorm
from oracles.adapters.functions import manual_layer
from oracles.cases.layers import EPSILONS, uneven
from oracles.registry import Case, oracle_for
from oracles.strategies import positive, real, rows, widths


@oracle_for(BatchNorm)
def batch_norm(draw: st.DrawFn) -> Case:
    """In training and in evaluation; no place to two axes of them; channels of one entry, of equal ones, of none."""
    layer = BatchNorm(
        draw(widths(4)),
        draw(EPSILONS),
        draw(st.sampled_from((0.1, 0.5, 0.0, 1.0))),
        affine=draw(st.booleans()),
        training=draw(st.booleans()),
    )
    places, n_rows = draw(st.lists(widths(3), max_size=2)), draw(rows())
    primals = {"z": uneven(draw, n_rows, layer.n, *places), "running_mean": real(layer.n)}
    primals["running_var"] = positive(layer.n)
    if layer.affine:
        primals |= {"gamma": real(layer.n), "beta": real(layer.n)}
    return Case(
        manual_layer(layer),
        primals,
        torch=torch_reference,
        jax=jax_reference,
        options=options(layer),
        batched=() if layer.training else ("z",),
    )


def options(layer: BatchNorm) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {name: getattr(layer, name) for name in ("eps", "momentum", "training")}


def channels_of(z: Any) -> Callable[[Any], Any]:
    """Return what lays one number for each channel along z, in either framework."""
    return lambda x: x.reshape(1, -1, *[1] * (z.ndim - 2))


def torch_reference(
    z: Any,
    running_mean: Any,
    running_var: Any,
    eps: float,
    momentum: float,
    training: bool,
    gamma: Any = None,
    beta: Any = None,
) -> Any:
    """torch's batch_norm in training, with (39) beside it: torch gives its running state no derivative."""
    import torch
    from torch.nn.functional import batch_norm

    along = channels_of(z)
    over = [axis for axis in range(z.ndim) if axis != 1]
    size = z.numel() // z.shape[1]
    if training and size > 1:
        y = batch_norm(z, None, None, gamma, beta, True, momentum, eps)
        moments = z.mean(over), z.var(over, unbiased=True)
        return y, torch.lerp(running_mean, moments[0], momentum), torch.lerp(running_var, moments[1], momentum)
    if training:  # torch refuses one entry, which any ε brings to 0
        y, moved = 0 * z, (torch.lerp(running_mean, z.mean(over), momentum) if size else running_mean, running_var)
    else:
        y, moved = (z - along(running_mean)) / torch.sqrt(along(running_var) + eps), None
    y = y if gamma is None else y * along(gamma) + along(beta)
    return y if moved is None else (y, *moved)


def jax_reference(
    z: Any,
    running_mean: Any,
    running_var: Any,
    eps: float,
    momentum: float,
    training: bool,
    gamma: Any = None,
    beta: Any = None,
) -> Any:
    """Means over all axes but the channels'."""
    import jax.numpy as jnp

    along = channels_of(z)
    over = tuple(axis for axis in range(z.ndim) if axis != 1)
    mean, var, moved = running_mean, running_var, None
    if training:
        size = z.size // z.shape[1]
        mean = jnp.sum(z, over) / max(size, 1)
        var = jnp.sum(jnp.square(z - along(mean)), over) / max(size, 1)
        moved = (
            (1 - momentum) * running_mean + momentum * mean if size > 0 else running_mean,
            (1 - momentum) * running_var + momentum * var * size / (size - 1) if size > 1 else running_var,
        )
    y = (z - along(mean)) / jnp.sqrt(along(var) + eps)
    y = y if gamma is None else y * along(gamma) + along(beta)
    return y if moved is None else (y, *moved)
