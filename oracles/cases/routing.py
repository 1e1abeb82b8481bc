"""What the twins of composites share: the references of the layers inside, and how to fill their parameters.

A layer inside is a link: its twin's module with its options, hashable, since a reference is traced once for each.
A twin may say ``options(layer)``, what its references need beyond the primals, and ``parameters(layer)``, how to fill
what `init` draws, where signed numbers of the size of one will not do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from oracles.strategies import Drawn, real

Link: TypeAlias = tuple[str, tuple[tuple[str, Any], ...]]


def link(layer: Any) -> Link:
    """Return the link that stands for a layer."""
    twin = _twin(layer)
    return twin, tuple(_of(twin, "options", _nothing)(layer).items())


def parameters_of(layer: Any, prefix: str = "") -> dict[str, Drawn]:
    """Return how to fill a layer's parameters, every name behind the prefix."""
    found: Mapping[str, Drawn] = _of(_twin(layer), "parameters", _as_initialized)(layer)
    return {prefix + name: drawn for name, drawn in found.items()}


def beneath(primals: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what belongs to the layer at this place, under its own names."""
    return {n.partition(".")[2]: p for n, p in primals.items() if n.partition(".")[0] == str(index)}


def applied(reference: str, of: Link, z: Any, primals: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the outputs of a link's reference, "torch_reference" or "jax_reference", as a tuple."""
    twin, configuration = of
    y = _of(twin, reference)(z, **primals, **dict(configuration))
    return y if isinstance(y, tuple) else (y,)


def untupled(parts: tuple[Any, ...]) -> Any:
    """Return the outputs as a reference gives them: one array, or a tuple of several."""
    return parts if len(parts) > 1 else parts[0]


def _as_initialized(layer: Any) -> dict[str, Drawn]:
    return {name: real(*value.shape) for name, value in layer.init(np.random.default_rng(0)).items()}


def _nothing(layer: Any) -> dict[str, Any]:
    return {}


def _twin(layer: Any) -> str:
    return type(layer).__module__.replace("manual_bp", "oracles.cases", 1)


@lru_cache
def _of(twin: str, name: str, otherwise: Callable[..., Any] | None = None) -> Callable[..., Any]:
    module = import_module(twin)
    found: Callable[..., Any] = getattr(module, name) if otherwise is None else getattr(module, name, otherwise)
    return found
