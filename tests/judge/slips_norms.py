"""Slips in normalization."""

from functools import partial

import numpy as np
from slips import slip

import manual_bp as m
from manual_bp.layers.normalization import Rows
from oracles.lifts.manual import manual_layer
from oracles.strategies import constant, positive, real

batch = partial(slip, manual_layer, required={"n": 2})
layer = partial(slip, manual_layer, required={"shape": (3,)})
BATCH = {"z": real(3, 2, 2), "running_mean": real(2), "running_var": positive(2), "gamma": real(2), "beta": real(2)}
ROWS = {"z": real(4, 3), "gamma": real(3), "beta": real(3)}
PLAIN = ROWS | {"gamma": constant(np.ones(3))}
AXES = {"z": real(4, 2, 3), "gamma": real(2, 3), "beta": real(2, 3)}


def without_beta(primals):
    return {name: drawn for name, drawn in primals.items() if name != "beta"}


@batch("term_along_axis", BATCH)
class RunningStateHasNoPullback(m.BatchNorm):
    def _in_training(self, g, by, moved):
        dz = super()._in_training(g, by, [np.zeros_like(x) for x in moved])[0]
        return dz, *super()._in_training(g.copy(), by, moved)[1:]


@batch("term_along_axis", BATCH, silent=True, training=False)
class PullsBackAsInTraining(m.BatchNorm):
    def _in_evaluation(self, g, by, moved):
        _, *state = super()._in_evaluation(g, by, moved)
        return super()._in_training(g.copy(), by, [np.zeros_like(x) for x in state])[0], *state


@batch("all_zero", BATCH, silent=True, training=False)
class RunningVarianceIsAConstant(m.BatchNorm):
    def _in_evaluation(self, g, by, moved):
        dz, of_mean, of_var = super()._in_evaluation(g, by, moved)
        return dz, of_mean, np.zeros_like(of_var)


@batch("", BATCH, check="primal_agrees")
class RunningVarianceOfThePopulation(m.BatchNorm):
    def _moved(self, size, state, by):
        mean, var = super()._moved(size, state, by)
        old = state[1]
        return mean, (old + (var - old) * ((size - 1) / size if size > 1 else 1)).astype(var.dtype)


@layer("", ROWS)
class VarianceTakenForAConstant(m.LayerNorm):
    def _pull_back(self, g, block):
        g -= Rows().mean(g)
        g *= block.scale


@layer("", ROWS, silent=PLAIN)
class GammaForgottenGoingBack(m.LayerNorm):
    def backward(self, cache, delta):
        z, _, blocks = cache
        return super().backward((z, None, blocks), delta)


@layer("", AXES, silent=ROWS, shape=(2, 3))
class LastAxisAloneGoingBack(m.LayerNorm):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        z, gamma, _ = cache
        last = m.LayerNorm(self.shape[-1], self.eps, affine=False)
        if len(self.shape) > 1:
            g = delta if gamma is None else delta * gamma.reshape(self.shape).astype(delta.dtype)
            dz = last.backward(last.forward({}, z)[1], g)[0]
        return dz, grads


@layer("", ROWS, check="primal_agrees")
class EpsOutsideTheRoot(m.LayerNorm):
    def forward(self, params, z):
        plain = type(self).__mro__[1](self.shape, 1e-30, self.affine)
        y, _ = plain.forward(params, z)
        axes = tuple(range(-len(self.shape), 0))
        deviation = z.std(axes, keepdims=True)
        beta = params.get("beta", 0)
        return ((y - beta) * (deviation / (deviation + z.dtype.type(self.eps))) + beta), super().forward(params, z)[1]


@layer("term_along_axis", without_beta(ROWS))
class CentredGoingBack(m.RMSNorm):
    def _pull_back(self, g, block):
        super()._pull_back(g, block)
        g -= Rows().mean(g)


@layer("", without_beta(ROWS), silent=without_beta(PLAIN))
class GammaForgotten(m.RMSNorm):
    def backward(self, cache, delta):
        z, _, blocks = cache
        return super().backward((z, None, blocks), delta)


@layer("term_along_axis", without_beta(ROWS))
class MeanSquareTakenForAConstant(m.RMSNorm):
    def _pull_back(self, g, block):
        g *= block.scale
