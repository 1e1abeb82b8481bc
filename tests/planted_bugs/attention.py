"""Bugs in MultiHeadAttention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import manual_bp as m
from manual_bp.protocol import as_tuple, one_or_tuple
from oracles.strategies import booleans, constant, real
from planted_bugs.planting import Mutant, bug, case_of


def attention(steps=3, bias=True, causal=False, **inputs):
    layer = m.MultiHeadAttention(4, 2, (), bias, "mask" in inputs, causal, "score_bias" in inputs)
    return case_of(layer, z=real(2, steps, 4), **inputs)


ALL_VISIBLE = constant(np.ones((2, 2, 3, 3), bool))
CROSS = case_of(m.MultiHeadAttention(4, 2, (3,)), z=real(2, 3, 4), source=real(2, 2, 3))


def _named(layer, dz):
    return dict(zip(layer.inputs, as_tuple(dz), strict=True))


@bug("all_zero", attention(steps=1), silent=CROSS)
def keys_and_values_detached(layer):
    cross = replace(layer, sources=layer.sources or (layer.n_model,))

    def backward(cache, delta):
        dz, grads = cross.backward(cache, delta)
        dz = as_tuple(dz)
        return one_or_tuple(dz if layer.sources else (dz[0], *dz[2:])), grads

    return Mutant(layer, backward)


@bug("constant_factor", attention(score_bias=real(2, 2, 3, 3)), silent=attention())
def score_bias_gradient_averaged_over_the_heads(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        dz = _named(layer, dz)
        if layer.score_bias:
            dz["score_bias"] = dz["score_bias"] / dz["score_bias"].dtype.type(layer.n_heads)
        return one_or_tuple(tuple(dz.values())), grads

    return Mutant(layer, backward)


@bug(
    "all_zero",
    attention(bias=False, mask=ALL_VISIBLE),
    silent=attention(),
    refused_by="primal_agrees",
)
class MaskInverted(m.MultiHeadAttention):
    def _mask(self, inputs, z, k):
        return super()._mask(inputs | {"mask": ~inputs["mask"]} if self.masked else inputs, z, k)


@bug("masked", attention(mask=booleans(2, 2, 3, 3, true=0.6)), silent=attention(), refused_by="primal_agrees")
class FirstMaskBroadcast(m.MultiHeadAttention):
    def _mask(self, inputs, z, k):
        return super()._mask(inputs | {"mask": inputs["mask"][:1, :1]} if self.masked else inputs, z, k)


@bug("", attention(causal=True), silent=attention(), refused_by="primal_agrees")
class CausalMaskOffByOne(m.MultiHeadAttention):
    def _mask(self, inputs, z, k):
        mask = super()._mask(inputs, z, k)
        return mask & np.tri(z.shape[1], k.shape[1], -1, dtype=bool) if self.causal else mask


@bug("constant_factor", attention())
def key_gradient_scaled_twice(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        return dz, {**grads, "W_k": grads["W_k"] / grads["W_k"].dtype.type((layer.n_model // layer.n_heads) ** 0.5)}

    return Mutant(layer, backward)
