"""Twins of `manual_bp.layers`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from oracles.adapters.functions import manual_layer
from oracles.registry import Case
from oracles.strategies import Drawn, real, rows, widths


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    """Draw a number for rows and another for columns."""
    return st.tuples(st.integers(least, most), st.integers(least, most))


def convolved(
    draw: st.DrawFn, layer: Any, extent: Sequence[int], W: tuple[int, ...], torch: Any, jax: Any, options: Any
) -> Case:
    """Draw up to three images for a convolution, and return its case."""
    primals = {"z": real(draw(rows(3)), layer.n_in, *extent), "W": real(*W, *layer.kernel)}
    if layer.bias:
        primals["b"] = real(layer.n_out)
    return Case(manual_layer(layer), primals, torch=torch, jax=jax, options=options(layer), batched=("z",))


# Of windows that pool: many that the images do not hold a whole number of.
KERNELS = st.sampled_from(((2, 2), (2, 3), (3, 2), (1, 3), (3, 1), (3, 3), (1, 1)))
STRIDES = st.sampled_from((None, (2, 2), (3, 2), (2, 3), (1, 1), (1, 2), (4, 4)))


def hanging_over(n: int, span: int, stride: int, padding: int, *, ceil_mode: bool) -> int:
    """Return how far the last window reaches beyond an axis of n entries; less than 0 where it falls short."""
    room = n + 2 * padding - span
    last = (-(-room // stride) if ceil_mode else room // stride) * stride
    if ceil_mode and last >= n + padding:  # it would begin after the image
        last -= stride
    return last + span - padding - n


EPSILONS = st.sampled_from((1e-5, 1e-3, 1.0))


def uneven(draw: st.DrawFn, *shape: int) -> Drawn:
    """Draw how a primal to be normalized is filled: numbers that vary, that hardly vary, or that are all equal."""
    offset, spread = draw(st.sampled_from(((0.0, 1.0), (100.0, 1.0), (3.0, 1e-3), (7.0, 0.0))))

    def fill(rng: Any, shape: tuple[int, ...], magnitude: float) -> Any:
        return magnitude * (offset + spread * rng.standard_normal(shape))

    return Drawn(shape, fill)


def normalized_rows(draw: st.DrawFn, kind: Any, torch: Any, jax: Any, options: Any) -> Case:
    """Draw a layer that normalizes the last axes, and its case."""
    shape, outer = draw(st.lists(widths(4), min_size=1, max_size=3)), draw(st.lists(widths(2), max_size=1))
    # Of one entry or two, the derivative is ε/(σ² + ε): all but 0 for a small ε, and then nothing can be seen.
    epsilons = EPSILONS if math.prod(shape) > 2 else st.sampled_from((1.0, 1.0, 1.0, 1e-5))
    layer = kind(tuple(shape), draw(epsilons), draw(st.booleans()))
    primals = {"z": uneven(draw, draw(rows()), *outer, *shape)}
    primals |= {name: real(*shape) for name in layer.init(np.random.default_rng(0))}
    return Case(manual_layer(layer), primals, torch=torch, jax=jax, options=options(layer), batched=("z",))
