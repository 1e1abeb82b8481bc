"""Reference cases of `Softmax` and `LogSoftmax`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from hypothesis import strategies as st

from manual_bp import Layer, LogSoftmax, Softmax
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import JaxArray, Tensor, jax, torch
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import real, rows, widths


def along_an_axis(
    draw: st.DrawFn,
    kind: Callable[[int], Layer],
    reference: Reference,
) -> Case:
    """An activation along an axis, counted from either end, of an array of rank 1 to 4."""
    shape = tuple(draw(widths()) for _ in range(draw(st.sampled_from((2, 1, 3, 4)))))
    axis = draw(st.sampled_from([-1, *range(-len(shape), len(shape))]))
    normal = axis % len(shape)
    if normal != 0:
        shape = draw(rows()), *shape[1:]
    return reference.case(
        manual_layer(kind(axis)),
        {"z": real(*shape, infinite="entries")},
        options={"axis": normal},  # not negative, so that JAX traces once for both
        batched=("z",) if normal != 0 else (),
        kinks="declared",
    )


def softmax_options(layer: Softmax) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"axis": layer.axis}


def softmax_torch(z: Tensor, axis: int = -1) -> Tensor:
    """Softmax, (22)."""
    return torch.softmax(z, dim=axis)


def softmax_jax(z: JaxArray, axis: int = -1) -> JaxArray:
    """Softmax, (22)."""
    return jax.nn.softmax(z, axis=axis)


SOFTMAX_REFERENCE = Reference(softmax_torch, softmax_jax, options=softmax_options)


@oracle_for(Softmax, reference=SOFTMAX_REFERENCE)
def softmax(draw: st.DrawFn) -> Case:
    """Any axis of arrays of rank 1 to 4."""
    return along_an_axis(draw, Softmax, SOFTMAX_REFERENCE)


def log_softmax_options(layer: LogSoftmax) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"axis": layer.axis}


def log_softmax_torch(z: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of softmax."""
    return torch.log_softmax(z, dim=axis)


def log_softmax_jax(z: JaxArray, axis: int = -1) -> JaxArray:
    """The logarithm of softmax."""
    return jax.nn.log_softmax(z, axis=axis)


LOG_SOFTMAX_REFERENCE = Reference(log_softmax_torch, log_softmax_jax, options=log_softmax_options)


@oracle_for(LogSoftmax, reference=LOG_SOFTMAX_REFERENCE)
def log_softmax(draw: st.DrawFn) -> Case:
    """Any axis of arrays of rank 1 to 4."""
    return along_an_axis(draw, LogSoftmax, LOG_SOFTMAX_REFERENCE)
