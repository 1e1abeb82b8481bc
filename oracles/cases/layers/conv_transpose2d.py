"""What torch and JAX call `ConvTranspose2d`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import ConvTranspose2d
from oracles.cases.layers import convolved, pairs
from oracles.registry import Case, oracle_for


@oracle_for(ConvTranspose2d)
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
    return convolved(draw, layer, extent, W, torch_reference, jax_reference, options)


def options(layer: ConvTranspose2d) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {name: getattr(layer, name) for name in ("stride", "padding", "output_padding", "dilation", "groups")}


def torch_reference(z: Any, W: Any, b: Any = None, **options: Any) -> Any:
    """Our conventions are torch's."""
    from torch.nn.functional import conv_transpose2d

    return conv_transpose2d(z, W, b, **options)


def jax_reference(
    z: Any, W: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any, groups: int, b: Any = None
) -> Any:
    """A convolution of the images with s − 1 zeros between their entries, by the kernel turned round."""
    import jax
    import jax.numpy as jnp

    n_in, share, *kernel = W.shape
    turned = jnp.flip(W.reshape(groups, n_in // groups, share, *kernel), (3, 4)).swapaxes(1, 2)
    span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    around = [(n - p, n - p + more) for n, p, more in zip(span, padding, output_padding, strict=True)]
    y = jax.lax.conv_general_dilated(
        z,
        turned.reshape(groups * share, n_in // groups, *kernel),
        (1, 1),
        around,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        feature_group_count=groups,
    )
    return y if b is None else y + b[:, None, None]
