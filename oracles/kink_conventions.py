"""Measure the derivative that each framework takes at kinks, where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oracles.adapters.functions import manual_layer
from oracles.backends.jax_reference import jax_vjp
from oracles.backends.torch_reference import torch_autograd
from oracles.registry import entries
from oracles.rule import Primals, Rule


@dataclass(frozen=True)
class Convention:
    """The derivative that a layer declares at a kink, and those that manual_bp, torch and JAX compute there."""

    layer: str
    kink: float
    declared: float
    manual_bp: float
    torch: float
    jax: float


def conventions() -> list[Convention]:
    """Measure every layer that declares a ``kink_convention``: a mapping from the kink to the derivative there.

    The frameworks' own functions are measured: ``native_torch`` and ``native_jax`` of the layer's `Reference` if it has
    them, else its references.
    """
    table = []
    for entry in entries():
        reference, layer = entry.reference, _default(entry.layer_type)
        if reference is None or layer is None:
            continue
        options = dict(reference.options(layer))
        for kink, declared in getattr(layer, "kink_convention", {}).items():
            native_torch = torch_autograd(_with(reference.native_torch or reference.torch, options))
            native_jax = jax_vjp(_with(reference.native_jax or reference.jax, options))
            primals = {"z": np.array([float(kink)]), **layer.init(np.random.default_rng(0))}
            slopes = (_slope(rule, primals) for rule in (manual_layer(layer), native_torch, native_jax))
            table.append(Convention(entry.name, float(kink), float(declared), *slopes))
    return table


def _default(kind: type) -> Any:
    """Return an instance with default fields, or ``None`` if the type needs arguments."""
    try:
        return kind()
    except (TypeError, ValueError):
        return None


def _with(f: Any, options: Any) -> Any:
    return lambda **primals: f(**primals, **options)


def _slope(rule: Rule, primals: Primals) -> float:
    _, pullback = rule(**primals)
    return float(pullback(np.ones(1))["z"][0])
