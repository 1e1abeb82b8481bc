"""Wrong recurrent layers and attention, with the check that must refuse each, and the diagnosis that it gets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from planting import Wrong, plant

from manual_bp import GRU, LSTM, MultiHeadAttention
from manual_bp.layers.gru import GRUCell
from manual_bp.layers.lstm import LSTMCell
from manual_bp.protocol import as_tuple, untupled

# LSTM and GRU


@plant(LSTM, "cotangents_agree", "")
def the_final_state_is_taken_for_unused(layer):
    return Wrong(layer, lambda cache, delta: layer.backward(cache, (delta[0], *map(np.zeros_like, delta[1:]))))


@plant(LSTM, "cotangents_agree", "wrong_only_in_places", silent=lambda layer: layer.n_layers * layer.n_directions == 1)
def every_pass_gets_the_first_ones_state_gradient(layer):
    def backward(cache, delta):
        (dz, dh, dc, *rest), grads = layer.backward(cache, delta)
        return (dz, np.repeat(dh[:, :1], dh.shape[1], axis=1), dc, *rest), grads

    return Wrong(layer, backward)


@plant(LSTM, "primal_agrees", "wrong_only_in_places", silent=lambda layer: not (layer.bidirectional and layer.lengths))
class TheWayBackBeginsInThePadding(LSTM):
    def _walk(self, own, z, state, mask, order):
        if mask is None or order.step == 1:
            return super()._walk(own, z, state, mask, order)
        hs, last, kept = super()._walk(own, z, state, None, order)
        return np.where(mask, hs, 0), last, kept


@plant(LSTM, "cotangents_agree", "", silent=lambda layer: not layer.lengths)
class PaddingPassesItsDeltaOn(LSTM):
    def _back(self, kept, dy, dstate, mask):
        return super()._back(kept, dy, dstate, None)


class _CellWithoutPeak(LSTMCell):
    def backward(self, cache, dstate):
        dh, dc = dstate
        da, _, (_, before) = super().backward(cache, (dh, np.zeros_like(dc)))
        return da, da, (None, before + dc * cache[0][:, len(dc.T) : 2 * len(dc.T)])


@plant(LSTM, "cotangents_agree", "term_missing")
class WhatComesThroughTheCellReachesNoGate(LSTM):
    cell = _CellWithoutPeak()


class _CellWithOneBias(GRUCell):
    def backward(self, cache, dstate):
        dx, _, direct = super().backward(cache, dstate)
        return dx, dx.copy(), direct


@plant(GRU, "cotangents_agree", "other_name")
class TheResetIsForgottenInBackward(GRU):
    cell = _CellWithOneBias()


class _CellThatForgets(GRUCell):
    def backward(self, cache, dstate):
        return *super().backward(cache, dstate)[:2], (None,)


@plant(GRU, "cotangents_agree", "")
class TheStateIsKeptWithoutAGradient(GRU):
    cell = _CellThatForgets()


@plant(GRU, "cotangents_agree", "other_name", silent=lambda layer: not layer.bias)
def the_recurrent_bias_gets_the_input_biases_gradient(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        return dz, {n: grads[n[:-1] + "b"].copy() if n.endswith(".d") else g for n, g in grads.items()}

    return Wrong(layer, backward)


@plant(GRU, "cotangents_agree", "reversed", silent=lambda layer: layer.n_layers == 1)
def the_second_layers_states_are_swapped(layer):
    def backward(cache, delta):
        (dz, dh, *rest), grads = layer.backward(cache, delta)
        return (dz, dh[:, ::-1].copy() if layer.n_layers > 1 else dh, *rest), grads

    return Wrong(layer, backward)


# MultiHeadAttention


def _named(layer, dz):
    return dict(zip(layer.inputs, as_tuple(dz), strict=True))


@plant(MultiHeadAttention, "cotangents_agree", "all_zero", silent=lambda layer: layer.sources)
def only_the_queries_pass_back_to_z(layer):
    cross = replace(layer, sources=layer.sources or (layer.n_model,))

    def backward(cache, delta):
        dz, grads = cross.backward(cache, delta)
        dz = as_tuple(dz)
        return untupled(dz if layer.sources else (dz[0], *dz[2:])), grads

    return Wrong(layer, backward)


@plant(MultiHeadAttention, "cotangents_agree", "constant_factor", silent=lambda layer: not layer.score_bias)
def the_score_bias_gets_a_mean_over_the_heads(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        dz = _named(layer, dz)
        if layer.score_bias:
            dz["score_bias"] = dz["score_bias"] / dz["score_bias"].dtype.type(layer.n_heads)
        return untupled(tuple(dz.values())), grads

    return Wrong(layer, backward)


@plant(MultiHeadAttention, "primal_agrees", "all_zero", silent=lambda layer: not layer.masked)
class TheMaskIsReadAsWhatToHide(MultiHeadAttention):
    def _mask(self, given, z, k):
        return super()._mask(given | {"mask": ~given["mask"]} if self.masked else given, z, k)


@plant(MultiHeadAttention, "primal_agrees", "masked", silent=lambda layer: not layer.masked)
class EveryHeadAndRowSeesTheFirstOnesMask(MultiHeadAttention):
    def _mask(self, given, z, k):
        return super()._mask(given | {"mask": given["mask"][:1, :1]} if self.masked else given, z, k)


@plant(MultiHeadAttention, "primal_agrees", "", silent=lambda layer: not layer.causal)
class CausalStopsOneStepEarly(MultiHeadAttention):
    def _mask(self, given, z, k):
        mask = super()._mask(given, z, k)
        return mask & np.tri(z.shape[1], k.shape[1], -1, dtype=bool) if self.causal else mask


@plant(MultiHeadAttention, "cotangents_agree", "constant_factor")
def keys_are_scaled_twice(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        return dz, {**grads, "W_k": grads["W_k"] / grads["W_k"].dtype.type((layer.n_model // layer.n_heads) ** 0.5)}

    return Wrong(layer, backward)
