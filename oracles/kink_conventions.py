"""Measure what each framework takes for the derivative at points that have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from oracles.adapters.functions import manual_layer
from oracles.backends.jax_reference import jax_vjp
from oracles.backends.torch_reference import torch_autograd
from oracles.registry import entries
from oracles.rule import Primals, Rule

# A function in a framework's own idiom, on its own arrays.
Reference: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Convention:
    """The derivative that a layer declares at a kink, and what manual_bp, torch and JAX give there."""

    layer: str
    kink: float
    declared: float
    manual_bp: float
    torch: float
    jax: float


def measure_conventions() -> list[Convention]:
    """Measure the derivatives of every layer that declares a ``kink_convention``: {kink: derivative there}.

    The frameworks' own functions are measured: ``native_torch`` and ``native_jax`` of the layer's `Reference` if it has
    them, else its references.
    """
    rows = []
    for entry in entries():
        reference, layer = entry.reference, _default_instance(entry.layer_type)
        if reference is None or layer is None:
            continue
        options = dict(reference.options(layer))
        for kink, declared in getattr(layer, "kink_convention", {}).items():
            torch = torch_autograd(_with_options(reference.native_torch or reference.torch, options))
            jax = jax_vjp(_with_options(reference.native_jax or reference.jax, options))
            primals = {"z": np.array([float(kink)]), **layer.init(np.random.default_rng(0))}
            slopes = [_slope(rule, primals) for rule in (manual_layer(layer), torch, jax)]
            rows.append(Convention(entry.name, float(kink), float(declared), *slopes))
    return rows


def _default_instance(kind: type) -> Any:
    """Return an instance with default fields, or ``None`` if the type needs arguments."""
    try:
        return kind()
    except (TypeError, ValueError):
        return None


def _with_options(f: Reference, options: Mapping[str, Any]) -> Reference:
    return lambda **primals: f(**primals, **options)


def _slope(rule: Rule, primals: Primals) -> float:
    _, pullback = rule(**primals)
    return float(pullback(np.ones(1))["z"][0])
