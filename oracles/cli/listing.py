"""``oracles list`` and ``oracles conventions``: what can be judged, and what is taken for a derivative at a kink."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from oracles.kink_conventions import conventions
from oracles.registry import complaints, entries, entries_of
from oracles.search import searches


def list_layers(cases: Sequence[str]) -> int:
    """Print every layer that can be judged, where it is and who speaks for it; return 0.

    Raises:
        ValueError: if a module of cases does not exist or registers nothing.
    """
    for module in cases:
        entries_of(module)
    table = Table("layer", "implemented in", "its cases are from", "checks")
    for entry in entries():
        checks = {check for _, check, _ in searches([entry])}
        table.add_row(entry.name, entry.layer_type.__module__, entry.source or entry.module, str(len(checks)))
    _console().print(table)
    for complaint in complaints():
        print(f"cannot be judged: {complaint}", file=sys.stderr)
    return 0


def list_conventions() -> int:
    """Print the derivative that each side takes at each declared kink; return 0."""
    table = Table("layer", "at", "declared", "manual_bp", "torch's own", "JAX's own")
    for row in conventions():
        table.add_row(row.layer, *(f"{v:g}" for v in (row.kink, row.declared, row.manual_bp, row.torch, row.jax)))
    _console().print(table)
    return 0


def _console() -> Console:
    return Console(width=100 if not sys.stdout.isatty() else None)
