"""Twins of `manual_bp.activations`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from oracles.adapters.functions import manual_layer
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


def along_an_axis(
    draw: st.DrawFn,
    kind: Callable[[int], Any],
    torch_reference: Callable[..., Any],
    jax_reference: Callable[..., Any],
) -> Case:
    """An activation along an axis, counted from either end, of an array of rank 1 to 4."""
    shape = tuple(draw(widths()) for _ in range(draw(st.sampled_from((2, 1, 3, 4)))))
    axis = draw(st.sampled_from([-1, *range(-len(shape), len(shape))]))
    normal = axis % len(shape)
    if normal != 0:
        shape = draw(rows()), *shape[1:]
    return Case(
        manual_layer(kind(axis)),
        {"z": real(*shape)},
        torch=torch_reference,
        jax=jax_reference,
        options={"axis": normal},  # JAX traces once for each
        batched=("z",) if normal != 0 else (),
        kinks="declared",
    )
