"""What torch and JAX call `MaxPool2d`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import MaxPool2d
from oracles.adapters.functions import manual_layer
from oracles.cases.layers import KERNELS, STRIDES, hanging_over, pairs
from oracles.registry import Case, oracle_for
from oracles.strategies import pixels, real, rows


@oracle_for(MaxPool2d)
def max_pool2d(draw: st.DrawFn) -> Case:
    """Every option; grey levels too, which often tie, and images smaller than a window with its padding."""
    kernel, dilation = draw(KERNELS), draw(pairs(1, 2))
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    most = draw(pairs(0, 2))
    padding = min(most[0], kernel[0] // 2), min(most[1], kernel[1] // 2)
    layer = MaxPool2d(kernel, draw(STRIDES), padding, dilation, draw(st.booleans()))
    extent = [
        max(d, n - 2 * a) + more for d, n, a, more in zip(dilation, span, padding, draw(pairs(0, 5)), strict=True)
    ]
    fill = draw(st.sampled_from((real, pixels)))
    return Case(
        manual_layer(layer),
        {"z": fill(draw(rows(3)), draw(st.integers(1, 2)), *extent)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(layer),
        batched=("z",),
        kinks="declared",
    )


def options(layer: MaxPool2d) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {name: getattr(layer, name) for name in ("kernel", "stride", "padding", "dilation", "ceil_mode")}


def torch_reference(z: Any, kernel: Any, **options: Any) -> Any:
    """Of entries that tie torch, too, takes the first."""
    from torch.nn.functional import max_pool2d

    return max_pool2d(z, kernel, **options)


def jax_reference(z: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    """The windows gathered, since XLA differentiates no dilated ones; the first of entries that tie."""
    import jax.numpy as jnp
    from jax import lax

    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = zip(z.shape[2:], span, stride, padding, strict=True)
    after = [hanging_over(*size, ceil_mode=ceil_mode) for size in sizes]
    around = [(0, 0, 0), (0, 0, 0), *((p, more, 0) for p, more in zip(padding, after, strict=True))]
    padded = lax.pad(z, jnp.asarray(-jnp.inf, z.dtype), around)
    i, j = (
        s * jnp.arange((n - w) // s + 1)[:, None] + d * jnp.arange(k)
        for n, w, s, d, k in zip(padded.shape[2:], span, stride, dilation, kernel, strict=True)
    )
    seen = padded[:, :, i[:, None, :, None], j[None, :, None, :]]
    grid = seen.shape[:4]
    seen = seen.reshape(grid[0] * grid[1], *grid[2:], kernel[0] * kernel[1])
    return jnp.take_along_axis(seen, seen.argmax(-1, keepdims=True), axis=-1).reshape(grid)
