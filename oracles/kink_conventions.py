"""What each framework takes for the derivative where there is none: a table, measured, not remembered."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from oracles.adapters.functions import manual_layer
from oracles.backends.jax_reference import jax_vjp
from oracles.backends.torch_reference import torch_autograd
from oracles.registry import entries
from oracles.rule import Primals, Rule


@dataclass(frozen=True)
class Convention:
    """The derivative that a layer declares at a kink, and what ours, torch's and JAX's own functions give there."""

    layer: str
    kink: float
    declared: float
    manual_bp: float
    torch: float
    jax: float


def conventions() -> list[Convention]:
    """Measure every layer that declares a ``kink_convention``: a mapping from the kink to the derivative there.

    The frameworks' own functions are asked, which a case may name as ``native_torch`` and ``native_jax`` where its
    references are written differently, to give the declared derivative.
    """
    found = []
    for entry in entries():
        layer = _default(entry.speaks_for)
        twin = import_module(entry.module)
        if not hasattr(twin, "torch_reference") or not hasattr(twin, "jax_reference"):
            continue  # somebody else's cases, which need not name their references so
        options: dict[str, Any] = dict(twin.options(layer)) if hasattr(twin, "options") and layer is not None else {}
        for kink, declared in getattr(layer, "kink_convention", {}).items():
            natives = {
                "torch": torch_autograd(_with(getattr(twin, "native_torch", twin.torch_reference), options)),
                "jax": jax_vjp(_with(getattr(twin, "native_jax", twin.jax_reference), options)),
            }
            primals = {"z": np.array([float(kink)]), **layer.init(np.random.default_rng(0))}
            at = {n: _slope(rule, primals) for n, rule in natives.items()}
            ours = _slope(manual_layer(layer), primals)
            found.append(Convention(entry.name, float(kink), float(declared), ours, at["torch"], at["jax"]))
    return found


def _default(kind: type) -> Any:
    """Return an instance as it comes; ``None`` for what needs arguments, which declares no kinks of its own."""
    try:
        return kind()
    except (TypeError, ValueError):
        return None


def _with(f: Any, options: Any) -> Any:
    return lambda **primals: f(**primals, **options)


def _slope(rule: Rule, primals: Primals) -> float:
    _, pullback = rule(**primals)
    return float(pullback(np.ones(1))["z"][0])
