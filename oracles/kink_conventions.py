"""Measure what each framework takes for the derivative at points that have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
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

    A reference case whose references are written to give the declared derivative may name the frameworks' own
    functions, which are measured, as ``native_torch`` and ``native_jax``.
    """
    rows = []
    for entry in entries():
        layer = _default_instance(entry.speaks_for)
        case = import_module(entry.module)
        if not hasattr(case, "torch_reference") or not hasattr(case, "jax_reference"):
            continue  # cases of another package need not have these names
        options = dict(case.options(layer)) if hasattr(case, "options") and layer is not None else {}
        for kink, declared in getattr(layer, "kink_convention", {}).items():
            torch = torch_autograd(_with_options(getattr(case, "native_torch", case.torch_reference), options))
            jax = jax_vjp(_with_options(getattr(case, "native_jax", case.jax_reference), options))
            primals = {"z": np.array([float(kink)]), **layer.init(np.random.default_rng(0))}
            slopes = [_slope(rule, primals) for rule in (manual_layer(layer), torch, jax)]
            rows.append(Convention(entry.name, float(kink), float(declared), *slopes))
    return rows


def _default_instance(kind: type) -> Any:
    """Return an instance made without arguments; ``None`` if it needs some: such a layer declares no kinks."""
    try:
        return kind()
    except (TypeError, ValueError):
        return None


def _with_options(f: Reference, options: Mapping[str, Any]) -> Reference:
    return lambda **primals: f(**primals, **options)


def _slope(rule: Rule, primals: Primals) -> float:
    _, pullback = rule(**primals)
    return float(pullback(np.ones(1))["z"][0])
