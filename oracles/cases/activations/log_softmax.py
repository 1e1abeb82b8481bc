"""What torch and JAX call `LogSoftmax`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import LogSoftmax
from oracles.cases.activations import along_an_axis
from oracles.registry import Case, oracle_for


@oracle_for(LogSoftmax)
def log_softmax(draw: st.DrawFn) -> Case:
    """Any axis of arrays of rank 1 to 4."""
    return along_an_axis(draw, LogSoftmax, torch_reference, jax_reference)


def options(layer: LogSoftmax) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {"axis": layer.axis}


def torch_reference(z: Any, axis: int = -1) -> Any:
    """The logarithm of softmax."""
    import torch

    return torch.log_softmax(z, dim=axis)


def jax_reference(z: Any, axis: int = -1) -> Any:
    """The logarithm of softmax."""
    import jax

    return jax.nn.log_softmax(z, axis=axis)
