"""Reference cases of `BatchNorm`, `LayerNorm` and `RMSNorm`."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from manual_bp import BatchNorm, LayerNorm, RMSNorm
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import F, JaxArray, Tensor, jax, jnp, torch
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import Drawn, positive, real, rows, widths

EPSILONS = st.sampled_from((1e-5, 1e-3, 1.0))


def uneven(draw: st.DrawFn, *shape: int) -> Drawn:
    """Draw how a primal to be normalized is filled: numbers that vary, that hardly vary, or that are all equal."""
    offset, spread = draw(st.sampled_from(((0.0, 1.0), (100.0, 1.0), (3.0, 1e-3), (7.0, 0.0))))

    def fill(rng: Any, shape: tuple[int, ...], magnitude: float) -> Any:
        return magnitude * (offset + spread * rng.standard_normal(shape))

    return Drawn(shape, fill)


def normalized_rows(draw: st.DrawFn, kind: type[LayerNorm] | type[RMSNorm], reference: Reference) -> Case:
    """Draw a layer that normalizes the last axes, and return its case."""
    shape, outer = draw(st.lists(widths(4), min_size=1, max_size=3)), draw(st.lists(widths(2), max_size=1))
    # With one or two entries, the derivative is ε/(σ² + ε): nearly 0 for a small ε, which would hide errors.
    epsilons = EPSILONS if math.prod(shape) > 2 else st.sampled_from((1.0, 1.0, 1.0, 1e-5))
    layer = kind(tuple(shape), draw(epsilons), draw(st.booleans()))
    primals = {"z": uneven(draw, draw(rows()), *outer, *shape)}
    primals |= {name: real(*shape) for name in layer.init(np.random.default_rng(0))}
    return reference.case(manual_layer(layer), primals, batched=("z",))


def batch_norm_options(layer: BatchNorm) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {name: getattr(layer, name) for name in ("eps", "momentum", "training")}


def channels_of(z: Any) -> Callable[[Any], Any]:
    """Return a function that reshapes one number for each channel to broadcast against z."""
    return lambda x: x.reshape(1, -1, *[1] * (z.ndim - 2))


def batch_norm_torch(
    z: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    momentum: float,
    training: bool,
    gamma: Tensor = None,
    beta: Tensor = None,
) -> Tensor:
    """torch's batch_norm in training, and (39), since torch's running state has no derivative."""
    along = channels_of(z)
    over = [axis for axis in range(z.ndim) if axis != 1]
    size = z.numel() // z.shape[1]
    if training and size > 1:
        y = F.batch_norm(z, None, None, gamma, beta, True, momentum, eps)
        moments = z.mean(over), z.var(over, unbiased=True)
        return y, torch.lerp(running_mean, moments[0], momentum), torch.lerp(running_var, moments[1], momentum)
    if training:  # torch refuses one entry, which any ε brings to 0
        y, next_state = 0 * z, (torch.lerp(running_mean, z.mean(over), momentum) if size else running_mean, running_var)
    else:
        y, next_state = (z - along(running_mean)) / torch.sqrt(along(running_var) + eps), None
    y = y if gamma is None else y * along(gamma) + along(beta)
    return y if next_state is None else (y, *next_state)


def batch_norm_jax(
    z: JaxArray,
    running_mean: JaxArray,
    running_var: JaxArray,
    eps: float,
    momentum: float,
    training: bool,
    gamma: JaxArray = None,
    beta: JaxArray = None,
) -> JaxArray:
    """Means over all axes but the channels'."""
    along = channels_of(z)
    over = tuple(axis for axis in range(z.ndim) if axis != 1)
    mean, var, next_state = running_mean, running_var, None
    if training:
        size = z.size // z.shape[1]
        mean = jnp.sum(z, over) / max(size, 1)
        var = jnp.sum(jnp.square(z - along(mean)), over) / max(size, 1)
        next_state = (
            (1 - momentum) * running_mean + momentum * mean if size > 0 else running_mean,
            (1 - momentum) * running_var + momentum * var * size / (size - 1) if size > 1 else running_var,
        )
    y = (z - along(mean)) / jnp.sqrt(along(var) + eps)
    y = y if gamma is None else y * along(gamma) + along(beta)
    return y if next_state is None else (y, *next_state)


BATCH_NORM_REFERENCE = Reference(batch_norm_torch, batch_norm_jax, options=batch_norm_options)


@oracle_for(BatchNorm, reference=BATCH_NORM_REFERENCE)
def batch_norm(draw: st.DrawFn) -> Case:
    """In training and in evaluation; up to two axes of positions; channels of one entry, of equal entries, of none."""
    layer = BatchNorm(
        draw(widths(4)),
        draw(EPSILONS),
        draw(st.sampled_from((0.1, 0.5, 0.0, 1.0))),
        affine=draw(st.booleans()),
        training=draw(st.booleans()),
    )
    positions, n_rows = draw(st.lists(widths(3), max_size=2)), draw(rows())
    primals = {"z": uneven(draw, n_rows, layer.n, *positions), "running_mean": real(layer.n)}
    primals["running_var"] = positive(layer.n)
    if layer.affine:
        primals |= {"gamma": real(layer.n), "beta": real(layer.n)}
    return BATCH_NORM_REFERENCE.case(
        manual_layer(layer),
        primals,
        batched=() if layer.training else ("z",),
    )


def layer_norm_options(layer: LayerNorm) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"shape": layer.shape, "eps": layer.eps}


def layer_norm_torch(
    z: Tensor, shape: tuple[int, ...], eps: float, gamma: Tensor = None, beta: Tensor = None
) -> Tensor:
    """The conventions are torch's; of no rows torch's variance warns that it has no entries."""
    if not z.numel():
        return z if gamma is None else z * gamma + beta
    return F.layer_norm(z, shape, gamma, beta, eps)


def layer_norm_jax(
    z: JaxArray, shape: tuple[int, ...], eps: float, gamma: JaxArray = None, beta: JaxArray = None
) -> JaxArray:
    """Mean and variance over the last axes."""
    axes = tuple(range(-len(shape), 0))
    deviation = z - jnp.mean(z, axes, keepdims=True)
    y = deviation * jax.lax.rsqrt(jnp.mean(deviation**2, axes, keepdims=True) + eps)
    return y if gamma is None else y * gamma + beta


LAYER_NORM_REFERENCE = Reference(layer_norm_torch, layer_norm_jax, options=layer_norm_options)


@oracle_for(LayerNorm, reference=LAYER_NORM_REFERENCE)
def layer_norm(draw: st.DrawFn) -> Case:
    """One to three axes, before them none to two; entries that vary, hardly vary, or are all equal."""
    return normalized_rows(draw, LayerNorm, LAYER_NORM_REFERENCE)


def rms_norm_options(layer: RMSNorm) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"shape": layer.shape, "eps": layer.eps}


def rms_norm_torch(z: Tensor, shape: tuple[int, ...], eps: float, gamma: Tensor = None) -> Tensor:
    """torch's own eps would be that of the dtype."""
    return F.rms_norm(z, shape, gamma, eps)


def rms_norm_jax(z: JaxArray, shape: tuple[int, ...], eps: float, gamma: JaxArray = None) -> JaxArray:
    """The mean square over the last axes."""
    y = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), tuple(range(-len(shape), 0)), keepdims=True) + eps)
    return y if gamma is None else y * gamma


RMS_NORM_REFERENCE = Reference(rms_norm_torch, rms_norm_jax, options=rms_norm_options)


@oracle_for(RMSNorm, reference=RMS_NORM_REFERENCE)
def rms_norm(draw: st.DrawFn) -> Case:
    """One to three axes, before them none to two; entries that vary, hardly vary, or are all equal."""
    return normalized_rows(draw, RMSNorm, RMS_NORM_REFERENCE)
