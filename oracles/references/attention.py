"""Reference cases of `MultiHeadAttention`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manual_bp import MultiHeadAttention
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import F, JaxArray, Tensor, jax, jnp, torch
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import Drawn, booleans, real, rows, widths

# (sources, bias, masked, causal, score_bias)
_OPTIONS = (
    (0, True, False, False, False),
    (0, False, True, False, False),
    (0, True, False, True, True),
    (1, True, True, False, True),
    (1, False, False, True, False),
    (2, True, True, True, True),
    (2, False, False, False, True),
)


def multi_head_attention_parameters(layer: MultiHeadAttention) -> dict[str, Drawn]:
    """Weights for which sums of n terms have magnitude one."""
    return {name: real(n, m, scale=n**-0.5) for name, (n, m) in layer._shapes().items()}


def multi_head_attention_options(layer: MultiHeadAttention) -> dict[str, Any]:
    """Return the configuration that the references need."""
    return {"n_heads": layer.n_heads, "causal": layer.causal}


def projected(z: Any, source: Any = None, k: Any = None, v: Any = None, **own: Any) -> tuple[Any, Any, Any]:
    """Return queries, keys and values, in operations that both frameworks have."""
    k = source if source is not None else z if k is None else k
    v = source if source is not None else z if v is None else v
    return z @ own["W_q"] + own.get("b_q", 0), k @ own["W_k"], v @ own["W_v"] + own.get("b_v", 0)


def multi_head_attention_torch(
    z: Tensor, n_heads: int, causal: bool, mask: Tensor = None, score_bias: Tensor = None, **own: Tensor
) -> Tensor:
    """`F.scaled_dot_product_attention`, with 0 instead of NaN in rows that may attend to nothing; −∞ is a mask too."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(2, (n_heads, -1)).transpose(1, 2)

    q, keys, values = map(heads, projected(z, **own))
    visible = torch.ones(*q.shape[:3], keys.shape[2], dtype=torch.bool, device=z.device)
    visible = visible & mask if mask is not None else visible
    visible = visible & (score_bias > -torch.inf) if score_bias is not None else visible
    visible = visible.tril() if causal else visible
    some = visible.any(-1, keepdim=True)
    added = torch.zeros(visible.shape, dtype=z.dtype, device=z.device) + (0 if score_bias is None else score_bias)
    added = added.masked_fill(~visible, 0).masked_fill(~visible & some, -torch.inf)
    out = F.scaled_dot_product_attention(q, keys, values, attn_mask=added).masked_fill(~some, 0)
    return out.transpose(1, 2).flatten(2) @ own["W_o"] + own.get("b_o", 0)


def multi_head_attention_jax(
    z: JaxArray, n_heads: int, causal: bool, mask: JaxArray = None, score_bias: JaxArray = None, **own: JaxArray
) -> JaxArray:
    """Einsums, and softmax over the keys of finite bias; shared masks are tiled, so that one trace serves all."""

    def heads(x: JaxArray) -> JaxArray:
        return x.reshape(*x.shape[:2], n_heads, x.shape[2] // n_heads)

    def tiled(x: JaxArray, shape: tuple[int, ...]) -> JaxArray:
        return jnp.tile(x, [n // max(extent, 1) for n, extent in zip(shape, x.shape, strict=True)])

    q, keys, values = map(heads, projected(z, **own))
    scores = jnp.einsum("nthd,nshd->nhts", q, keys) / q.shape[3] ** 0.5
    visible = jnp.ones(scores.shape, bool) if mask is None else tiled(mask, scores.shape)
    if score_bias is not None:
        bias = tiled(score_bias, scores.shape)
        visible = visible & (bias > -jnp.inf)
        scores = scores + jnp.where(visible, bias, 0)
    if causal:
        visible = visible & (jnp.arange(scores.shape[3]) <= jnp.arange(scores.shape[2])[:, None])
    p = jax.nn.softmax(scores, axis=-1, where=visible)
    out = jnp.einsum("nhts,nshd->nthd", jnp.where(visible, p, 0), values)
    return out.reshape(z.shape) @ own["W_o"] + own.get("b_o", 0)


MULTI_HEAD_ATTENTION_REFERENCE = Reference(
    multi_head_attention_torch,
    multi_head_attention_jax,
    options=multi_head_attention_options,
    parameters=multi_head_attention_parameters,
)


@oracle_for(MultiHeadAttention, reference=MULTI_HEAD_ATTENTION_REFERENCE)
def multi_head_attention(draw: st.DrawFn) -> Case:
    """Every option, one head and several, one step too; masks and biases shared and not, everything masked too."""
    sources, bias, masked, causal, score_bias = draw(st.sampled_from(_OPTIONS))
    n_heads, n_rows, steps = draw(st.sampled_from((2, 1, 3))), draw(rows(3)), draw(widths(3))
    n_keys = draw(widths(3)) if sources else steps
    layer = MultiHeadAttention(
        n_heads * draw(widths(2)),
        n_heads,
        tuple(draw(widths(2)) for _ in range(sources)),
        bias,
        masked,
        causal,
        score_bias,
    )
    full = n_rows, n_heads, steps, n_keys
    shared = draw(st.sampled_from(((), (), (0, 1), (1, 2), (2, 3), (0, 1, 2, 3))))
    extents = tuple(1 if axis in shared else extent for axis, extent in enumerate(full))
    primals = {"z": real(n_rows, steps, layer.n_model)}
    primals |= {n: real(n_rows, n_keys, m) for n, m in zip(layer.inputs[1:], layer.sources, strict=False)}
    if masked:
        primals["mask"] = booleans(*extents, true=draw(st.sampled_from((0.6, 0.6, 0.6, 0.0))))
    if score_bias:
        primals["score_bias"] = real(*extents, infinite="rows")
    return MULTI_HEAD_ATTENTION_REFERENCE.case(
        manual_layer(layer),
        {**primals, **multi_head_attention_parameters(layer)},
        batched=() if 0 in shared and (masked or score_bias) else layer.inputs,
    )
