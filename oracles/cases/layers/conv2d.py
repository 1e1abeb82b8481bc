"""What torch and JAX call `Conv2d`, and what to draw for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from hypothesis import strategies as st

from manual_bp import Conv2d
from oracles.cases.layers import convolved, pairs
from oracles.registry import Case, oracle_for


@oracle_for(Conv2d)
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
    return convolved(draw, layer, extent, W, torch_reference, jax_reference, options)


def options(layer: Conv2d) -> Mapping[str, Hashable]:
    """What the references need to know of the layer."""
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}


def torch_reference(z: Any, W: Any, stride: Any, padding: Any, dilation: Any, groups: int, b: Any = None) -> Any:
    """Our conventions are torch's; "same" is written out, since torch warns where it makes a copy for it."""
    from torch.nn.functional import conv2d, pad

    if padding == "same":
        (h, w), padding = [d * (k - 1) for d, k in zip(dilation, W.shape[2:], strict=True)], 0
        z = pad(z, (w // 2, w - w // 2, h // 2, h - h // 2))
    return conv2d(z, W, b, stride, padding, dilation, groups)


def jax_reference(z: Any, W: Any, stride: Any, padding: Any, dilation: Any, groups: int, b: Any = None) -> Any:
    """XLA's convolution of the padded images; JAX's own "SAME" is another one where there is a stride."""
    import jax

    around = padding.upper() if isinstance(padding, str) else [(p, p) for p in padding]
    y = jax.lax.conv_general_dilated(z, W, stride, around, rhs_dilation=dilation, feature_group_count=groups)
    return y if b is None else y + b[:, None, None]
