"""Reference cases of `MaxPool2d` and `AvgPool2d`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from hypothesis import strategies as st

from manual_bp import AvgPool2d, MaxPool2d
from manual_bp._windows import Pair
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import F, JaxArray, Tensor, jnp, lax
from oracles.references.conv import pairs
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import pixels, real, rows

# Kernels and strides of which many do not divide the images.
KERNELS = st.sampled_from(((2, 2), (2, 3), (3, 2), (1, 3), (3, 1), (3, 3), (1, 1)))

STRIDES = st.sampled_from((None, (2, 2), (3, 2), (2, 3), (1, 1), (1, 2), (4, 4)))


def overhang(n: int, span: int, stride: int, padding: int, *, ceil_mode: bool) -> int:
    """Return how far the last window reaches beyond an axis of n entries; negative if it ends before."""
    steps = n + 2 * padding - span
    last = (-(-steps // stride) if ceil_mode else steps // stride) * stride
    if ceil_mode and last >= n + padding:  # it would begin after the image
        last -= stride
    return last + span - padding - n


def max_pool2d_options(layer: MaxPool2d) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {name: getattr(layer, name) for name in ("kernel", "stride", "padding", "dilation", "ceil_mode")}


def max_pool2d_torch(z: Tensor, kernel: Pair, **options: Tensor) -> Tensor:
    """Of entries that tie, torch takes the first, too."""
    return F.max_pool2d(z, kernel, **options)


def max_pool2d_jax(z: JaxArray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> JaxArray:
    """The windows gathered, since XLA differentiates no dilated ones; the first of entries that tie."""
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = zip(z.shape[2:], span, stride, padding, strict=True)
    after = [overhang(*size, ceil_mode=ceil_mode) for size in sizes]
    around = [(0, 0, 0), (0, 0, 0), *((p, more, 0) for p, more in zip(padding, after, strict=True))]
    padded = lax.pad(z, jnp.asarray(-jnp.inf, z.dtype), around)
    i, j = (
        s * jnp.arange((n - w) // s + 1)[:, None] + d * jnp.arange(k)
        for n, w, s, d, k in zip(padded.shape[2:], span, stride, dilation, kernel, strict=True)
    )
    taps = padded[:, :, i[:, None, :, None], j[None, :, None, :]]
    grid = taps.shape[:4]
    taps = taps.reshape(grid[0] * grid[1], *grid[2:], kernel[0] * kernel[1])
    return jnp.take_along_axis(taps, taps.argmax(-1, keepdims=True), axis=-1).reshape(grid)


MAX_POOL2D_REFERENCE = Reference(max_pool2d_torch, max_pool2d_jax, options=max_pool2d_options)


@oracle_for(MaxPool2d, reference=MAX_POOL2D_REFERENCE)
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
    return MAX_POOL2D_REFERENCE.case(
        manual_layer(layer),
        {"z": fill(draw(rows(3)), draw(st.integers(1, 2)), *extent)},
        batched=("z",),
        kinks="declared",
    )


def avg_pool2d_options(layer: AvgPool2d) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {name: getattr(layer, name) for name in ("kernel", "stride", "padding", "ceil_mode", "count_include_pad")}


def avg_pool2d_torch(z: Tensor, kernel: Pair, **options: Tensor) -> Tensor:
    """torch's function; the conventions are the same."""
    return F.avg_pool2d(z, kernel, **options)


def avg_pool2d_jax(
    z: JaxArray, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> JaxArray:
    """Sums of windows, divided by sums of ones: over the image, and over its padding where that counts."""
    sizes = list(zip(z.shape[2:], kernel, stride, padding, strict=True))
    after = [overhang(*size, ceil_mode=ceil_mode) for size in sizes]

    def summed(x: JaxArray, around: JaxArray) -> JaxArray:
        padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *around])
        return lax.reduce_window(padded, 0.0, lax.add, (1, 1, *kernel), (1, 1, *stride), "VALID")

    ones = jnp.ones((1, 1, *z.shape[2:]), z.dtype)
    if count_include_pad:
        ones = jnp.pad(ones, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=1)
        beyond = [(0, more - p, 0) for p, more in zip(padding, after, strict=True)]
    else:
        beyond = [(p, more, 0) for p, more in zip(padding, after, strict=True)]
    return summed(z, [(p, more, 0) for p, more in zip(padding, after, strict=True)]) / summed(ones, beyond)


AVG_POOL2D_REFERENCE = Reference(avg_pool2d_torch, avg_pool2d_jax, options=avg_pool2d_options)


@oracle_for(AvgPool2d, reference=AVG_POOL2D_REFERENCE)
def avg_pool2d(draw: st.DrawFn) -> Case:
    """Every option, and images smaller than a window with its padding."""
    kernel, most = draw(KERNELS), draw(pairs(0, 2))
    padding = min(most[0], kernel[0] // 2), min(most[1], kernel[1] // 2)
    ceil_mode, include = draw(st.booleans()), draw(st.booleans())
    layer = AvgPool2d(kernel, draw(STRIDES), padding, ceil_mode, include)
    extent = [max(1, k - 2 * a) + more for k, a, more in zip(kernel, padding, draw(pairs(0, 5)), strict=True)]
    return AVG_POOL2D_REFERENCE.case(
        manual_layer(layer),
        {"z": real(draw(rows(3)), draw(st.integers(1, 2)), *extent)},
        batched=("z",),
    )
