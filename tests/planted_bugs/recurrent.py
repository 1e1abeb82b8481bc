"""Bugs in the recurrent layers."""

from __future__ import annotations

from functools import partial

import numpy as np

import manual_bp as m
from manual_bp.recurrent import GRUCell, LSTMCell
from oracles.strategies import constant, real
from planted_bugs.planting import Mutant, bug, case_of


def recurrent(kind, lengths=False, steps=4, **options):
    layer = kind(3, 2, lengths=lengths, **options)
    states = {name: real(3, layer.n_layers * layer.n_directions, 2) for name in layer.cell.states}
    return case_of(layer, z=real(3, steps, 3), **states, **({"lengths": constant([2, 4, 3])} if lengths else {}))


lstm, gru = partial(recurrent, m.LSTM), partial(recurrent, m.GRU)

# LSTM


@bug("", lstm())
def delta_of_the_final_state_ignored(layer):
    return Mutant(layer, lambda cache, delta: layer.backward(cache, (delta[0], *map(np.zeros_like, delta[1:]))))


@bug("index_map", lstm(bidirectional=True), silent=lstm())
def first_state_gradient_repeated(layer):
    def backward(cache, delta):
        (dz, dh, dc, *rest), grads = layer.backward(cache, delta)
        return (dz, np.repeat(dh[:, :1], dh.shape[1], axis=1), dc, *rest), grads

    return Mutant(layer, backward)


@bug("wrong_only_in_locations", lstm(True, bidirectional=True), silent=lstm(), refused_by="primal_agrees")
class ReverseDirectionStartsInThePadding(m.LSTM):
    def _walk(self, own, z, state, mask, order):
        if mask is None or order.step == 1:
            return super()._walk(own, z, state, mask, order)
        hs, last, cache = super()._walk(own, z, state, None, order)
        return np.where(mask, hs, 0), last, cache


@bug("", lstm(True), silent=lstm())
class GradientFlowsThroughThePadding(m.LSTM):
    def _back(self, cache, dy, dstate, mask):
        return super()._back(cache, dy, dstate, None)


class _CellWithoutPeak(LSTMCell):
    def backward(self, cache, dstate):
        dh, dc = dstate
        da, _, (_, before) = super().backward(cache, (dh, np.zeros_like(dc)))
        return da, da, (None, before + dc * cache[0][:, len(dc.T) : 2 * len(dc.T)])


@bug("term_missing", lstm(steps=1))
class CellStateGradientReachesNoGate(m.LSTM):
    cell = _CellWithoutPeak()


class _CellWithoutReset(GRUCell):
    def backward(self, cache, dstate):
        dx, _, direct = super().backward(cache, dstate)
        return dx, dx.copy(), direct


# GRU


# The gravest error is in U, in the columns of the candidate state alone, or in d, which gets the gradient of b.
@bug("", gru(steps=1), acceptable=("other_name", "wrong_only_in_locations"))
class ResetGateIgnoredInBackward(m.GRU):
    cell = _CellWithoutReset()


class _CellThatForgets(GRUCell):
    def backward(self, cache, dstate):
        return *super().backward(cache, dstate)[:2], (None,)


# The gradients of the last step need no carried state.
@bug("", gru(), acceptable=("wrong_only_in_locations",))
class CarriedStateDetached(m.GRU):
    cell = _CellThatForgets()


@bug("other_name", gru(), silent=gru(bias=False))
def recurrent_bias_gets_the_input_biases_gradient(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        return dz, {n: grads[n[:-1] + "b"].copy() if n.endswith(".d") else g for n, g in grads.items()}

    return Mutant(layer, backward)


@bug("reversed", gru(n_layers=2), silent=gru())
def state_gradients_of_the_layers_swapped(layer):
    def backward(cache, delta):
        (dz, dh, *rest), grads = layer.backward(cache, delta)
        return (dz, dh[:, ::-1].copy() if layer.n_layers > 1 else dh, *rest), grads

    return Mutant(layer, backward)
