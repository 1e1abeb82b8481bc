"""What torch and JAX call `AvgPool2d`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import AvgPool2d
from oracles.adapters.functions import manual_layer
from oracles.cases.layers import KERNELS, STRIDES, hanging_over, pairs
from oracles.registry import Case, oracle_for
from oracles.strategies import real, rows


@oracle_for(AvgPool2d)
def avg_pool2d(draw: st.DrawFn) -> Case:
    """Every option, and images smaller than a window with its padding."""
    kernel, most = draw(KERNELS), draw(pairs(0, 2))
    padding = min(most[0], kernel[0] // 2), min(most[1], kernel[1] // 2)
    ceil_mode, include = draw(st.booleans()), draw(st.booleans())
    layer = AvgPool2d(kernel, draw(STRIDES), padding, ceil_mode, include)
    extent = [max(1, k - 2 * a) + more for k, a, more in zip(kernel, padding, draw(pairs(0, 5)), strict=True)]
    return Case(
        manual_layer(layer),
        {"z": real(draw(rows(3)), draw(st.integers(1, 2)), *extent)},
        torch=torch_reference,
        jax=jax_reference,
        options=options(layer),
        batched=("z",),
    )


def options(layer: AvgPool2d) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {name: getattr(layer, name) for name in ("kernel", "stride", "padding", "ceil_mode", "count_include_pad")}


def torch_reference(z: Any, kernel: Any, **options: Any) -> Any:
    """Our conventions are torch's."""
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(z, kernel, **options)


def jax_reference(z: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool) -> Any:
    """Sums of windows, divided by sums of ones: over the image, and over its padding where that counts."""
    import jax.numpy as jnp
    from jax import lax

    sizes = list(zip(z.shape[2:], kernel, stride, padding, strict=True))
    after = [hanging_over(*size, ceil_mode=ceil_mode) for size in sizes]

    def summed(x: Any, around: Any) -> Any:
        padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *around])
        return lax.reduce_window(padded, 0.0, lax.add, (1, 1, *kernel), (1, 1, *stride), "VALID")

    ones = jnp.ones((1, 1, *z.shape[2:]), z.dtype)
    if count_include_pad:
        ones = jnp.pad(ones, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=1)
        beyond = [(0, more - p, 0) for p, more in zip(padding, after, strict=True)]
    else:
        beyond = [(p, more, 0) for p, more in zip(padding, after, strict=True)]
    return summed(z, [(p, more, 0) for p, more in zip(padding, after, strict=True)]) / summed(ones, beyond)
