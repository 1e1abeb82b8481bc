"""Reference cases of `Conv2d` and `ConvTranspose2d`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from manual_bp import Conv2d, ConvTranspose2d
from manual_bp._windows import Pair
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import F, JaxArray, Tensor, jax, jnp
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import real, rows


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    """Draw a number for rows and another for columns."""
    return st.tuples(st.integers(least, most), st.integers(least, most))


def case_of_images(
    draw: st.DrawFn, layer: Conv2d | ConvTranspose2d, extent: Sequence[int], W: tuple[int, ...], reference: Reference
) -> Case:
    """Draw up to three images for a convolution, and return its case."""
    kernel: Any = layer.kernel  # a pair, once the layer is made
    primals = {"z": real(draw(rows(3)), layer.n_in, *extent), "W": real(*W, *kernel)}
    if layer.bias:
        primals["b"] = real(layer.n_out)
    return reference.case(manual_layer(layer), primals, batched=("z",))


def conv2d_options(layer: Conv2d) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}


def conv2d_torch(
    z: Tensor, W: Tensor, stride: Pair, padding: Pair | str, dilation: Pair, groups: int, b: Tensor = None
) -> Tensor:
    """The conventions are torch's; "same" is written out, since torch warns where it makes a copy for it."""
    if padding == "same":
        (h, w), padding = [d * (k - 1) for d, k in zip(dilation, W.shape[2:], strict=True)], (0, 0)
        z = F.pad(z, (w // 2, w - w // 2, h // 2, h - h // 2))
    return F.conv2d(z, W, b, stride, padding, dilation, groups)


def conv2d_jax(
    z: JaxArray, W: JaxArray, stride: Pair, padding: Pair | str, dilation: Pair, groups: int, b: JaxArray = None
) -> JaxArray:
    """XLA's convolution of the padded images; JAX's own "SAME" is another one where there is a stride."""
    around = padding.upper() if isinstance(padding, str) else [(p, p) for p in padding]
    y = jax.lax.conv_general_dilated(z, W, stride, around, rhs_dilation=dilation, feature_group_count=groups)
    return y if b is None else y + b[:, None, None]


CONV2D_REFERENCE = Reference(conv2d_torch, conv2d_jax, options=conv2d_options)


@oracle_for(Conv2d, reference=CONV2D_REFERENCE)
def conv2d(draw: st.DrawFn) -> Case:
    """Every option; images as large as the kernel or larger, and some whose last rows no window reaches."""
    groups, padding = draw(st.integers(1, 3)), draw(st.sampled_from(("number", "same", "valid")))
    kernel, dilation = draw(pairs(1, 3)), draw(pairs(1, 2))
    stride = (1, 1) if padding == "same" else draw(pairs(1, 4))
    layer = Conv2d(
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        kernel,
        stride,
        draw(pairs(0, 2)) if padding == "number" else padding,
        dilation,
        groups,
        bias=draw(st.booleans()),
    )
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    least = (1, 1) if padding == "same" else span
    extent = [n + more for n, more in zip(least, draw(pairs(0, 4)), strict=True)]
    W = layer.n_out, layer.n_in // groups
    return case_of_images(draw, layer, extent, W, CONV2D_REFERENCE)


def conv_transpose2d_options(layer: ConvTranspose2d) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {name: getattr(layer, name) for name in ("stride", "padding", "output_padding", "dilation", "groups")}


def conv_transpose2d_torch(z: Tensor, W: Tensor, b: Tensor = None, **options: Tensor) -> Tensor:
    """torch's function; the conventions are the same."""
    return F.conv_transpose2d(z, W, b, **options)


def conv_transpose2d_jax(
    z: JaxArray,
    W: JaxArray,
    stride: Pair,
    padding: Pair | str,
    output_padding: Pair | str,
    dilation: Pair,
    groups: int,
    b: JaxArray = None,
) -> JaxArray:
    """A convolution of the images with s − 1 zeros between their entries, by the kernel flipped round."""
    n_in, share, *kernel = W.shape
    flipped = jnp.flip(W.reshape(groups, n_in // groups, share, *kernel), (3, 4)).swapaxes(1, 2)
    span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    around = [(n - p, n - p + more) for n, p, more in zip(span, padding, output_padding, strict=True)]
    y = jax.lax.conv_general_dilated(
        z,
        flipped.reshape(groups * share, n_in // groups, *kernel),
        (1, 1),
        around,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        feature_group_count=groups,
    )
    return y if b is None else y + b[:, None, None]


CONV_TRANSPOSE2D_REFERENCE = Reference(conv_transpose2d_torch, conv_transpose2d_jax, options=conv_transpose2d_options)


@oracle_for(ConvTranspose2d, reference=CONV_TRANSPOSE2D_REFERENCE)
def conv_transpose2d(draw: st.DrawFn) -> Case:
    """Every option; a padding that leaves one row, and images of one pixel."""
    groups, kernel, stride, dilation = draw(st.integers(1, 3)), draw(pairs(1, 3)), draw(pairs(1, 3)), draw(pairs(1, 2))
    extent, (most, more) = draw(pairs(1, 4)), (draw(pairs(0, 2)), draw(pairs(0, 2)))
    more = min(more[0], max(stride[0], dilation[0]) - 1), min(more[1], max(stride[1], dilation[1]) - 1)
    whole = [
        s * (n - 1) + d * (k - 1) + 1 + m for s, n, d, k, m in zip(stride, extent, dilation, kernel, more, strict=True)
    ]
    padding = min(most[0], (whole[0] - 1) // 2), min(most[1], (whole[1] - 1) // 2)
    layer = ConvTranspose2d(
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        kernel,
        stride,
        padding,
        more,
        dilation,
        groups,
        bias=draw(st.booleans()),
    )
    W = layer.n_in, layer.n_out // groups
    return case_of_images(draw, layer, extent, W, CONV_TRANSPOSE2D_REFERENCE)
