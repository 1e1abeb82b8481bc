"""Twins of `manual_bp.activations`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from oracles.lifts.manual import manual_layer
from oracles.registry import Case
from oracles.strategies import real, rows, widths


def on_rows(
    draw: st.DrawFn,
    layer: Any,
    torch_reference: Callable[..., Any],
    jax_reference: Callable[..., Any],
    options: Mapping[str, Hashable] | None = None,
) -> Case:
    """An activation on any number of rows of any width."""
    return Case(
        manual_layer(layer),
        {"z": real(draw(rows()), draw(widths()))},
        torch=torch_reference,
        jax=jax_reference,
        options=options or {},
        batched=("z",),
        kinks="declared",
    )
