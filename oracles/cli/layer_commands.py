"""The commands that list: ``oracles list`` the layers, ``oracles conventions`` their derivatives at kinks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from rich.table import Table

from oracles.adapters.functions import manual_layer
from oracles.backends.jax_reference import jax_vjp
from oracles.backends.torch_reference import torch_autograd
from oracles.cli.user_files import cases_in
from oracles.cli.verify_tables import make_console
from oracles.properties import properties_of
from oracles.registry import complaints, entries
from oracles.rule import Primals, Rule

# A function in a framework's own idiom, on its own arrays.
FrameworkFunction: TypeAlias = Callable[..., Any]


def list_layers(cases: Sequence[str], *, as_json: bool = False) -> int:
    """Print every layer that can be judged, its module and the source of its cases, as a table or as JSON; return 0.

    Raises:
        ValueError: if a module of cases does not exist or registers nothing.
    """
    for module in cases:
        cases_in(module)
    rows = [
        {
            "layer": entry.name,
            "module": entry.layer_type.__module__,
            "source": entry.source or entry.module,
            "properties": list(properties_of(entry)),
        }
        for entry in entries()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        table = Table("layer", "implemented in", "its cases are from", "properties")
        for row in rows:
            table.add_row(str(row["layer"]), str(row["module"]), str(row["source"]), str(len(row["properties"])))
        make_console().print(table)
    for complaint in complaints():
        print(f"cannot be judged: {complaint}", file=sys.stderr)
    return 0


def list_conventions() -> int:
    """Print the derivative that each framework gives at each declared kink; return 0."""
    table = Table("layer", "at", "declared", "manual_bp", "torch's own", "JAX's own")
    for row in measure_conventions():
        table.add_row(row.layer, *(f"{v:g}" for v in (row.kink, row.declared, row.manual_bp, row.torch, row.jax)))
    make_console().print(table)
    return 0


@dataclass(frozen=True)
class KinkSlopes:
    """The derivative that a layer declares at a kink, and what manual_bp, torch and JAX give there."""

    layer: str
    kink: float
    declared: float
    manual_bp: float
    torch: float
    jax: float


def measure_conventions() -> list[KinkSlopes]:
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
            rows.append(KinkSlopes(entry.name, float(kink), float(declared), *slopes))
    return rows


def _default_instance(kind: type) -> Any:
    """Return an instance with default fields, or ``None`` if the type needs arguments."""
    try:
        return kind()
    except (TypeError, ValueError):
        return None


def _with_options(f: FrameworkFunction, options: Mapping[str, Any]) -> FrameworkFunction:
    return lambda **primals: f(**primals, **options)


def _slope(rule: Rule, primals: Primals) -> float:
    _, pullback = rule(**primals)
    return float(pullback(np.ones(1))["z"][0])
