"""Bugs in normalization."""

import numpy as np

import manual_bp as m
from manual_bp.normalization import Rows
from oracles.strategies import constant, positive, real
from planted_bugs.planting import bug, case_of

ONES = {"gamma": constant(np.ones(3))}


def batch_norm(**options):
    return case_of(m.BatchNorm(2, **options), z=real(3, 2, 2), running_mean=real(2), running_var=positive(2))


def layer_norm(*shape, **inputs):
    return case_of(m.LayerNorm(shape or (3,)), z=real(4, *(shape or (3,))), **inputs)


def rms_norm(**inputs):
    return case_of(m.RMSNorm((3,)), z=real(4, 3), **inputs)


@bug("term_along_axis", batch_norm())
class RunningStatisticsDetached(m.BatchNorm):
    def _in_training(self, g, norm, moments):
        dz = super()._in_training(g, norm, [np.zeros_like(x) for x in moments])[0]
        return dz, *super()._in_training(g.copy(), norm, moments)[1:]


@bug("term_along_axis", batch_norm(training=False), silent=batch_norm())
class TrainingBackwardInEvaluation(m.BatchNorm):
    def _in_evaluation(self, g, norm, moments):
        _, *state = super()._in_evaluation(g, norm, moments)
        return super()._in_training(g.copy(), norm, [np.zeros_like(x) for x in state])[0], *state


@bug("all_zero", batch_norm(training=False), silent=batch_norm())
class RunningVarianceDetached(m.BatchNorm):
    def _in_evaluation(self, g, norm, moments):
        dz, of_mean, of_var = super()._in_evaluation(g, norm, moments)
        return dz, of_mean, np.zeros_like(of_var)


@bug("", batch_norm(), refused_by="primal_agrees")
class BiasedRunningVariance(m.BatchNorm):
    def _next_state(self, size, state, norm):
        mean, var = super()._next_state(size, state, norm)
        old = state[1]
        return mean, (old + (var - old) * ((size - 1) / size if size > 1 else 1)).astype(var.dtype)


@bug("detached_term", layer_norm())
class VarianceDetached(m.LayerNorm):
    def _pull_back(self, g, block):
        g -= Rows().mean(g)
        g *= block.scale


@bug("primal_changed", layer_norm(), silent=layer_norm(**ONES))
class GammaIgnoredInBackward(m.LayerNorm):
    def backward(self, cache, delta):
        z, _, blocks = cache
        return super().backward((z, None, blocks), delta)


@bug("", layer_norm(2, 3), silent=layer_norm())
class LastAxisOnlyInBackward(m.LayerNorm):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        z, gamma, _ = cache
        last = m.LayerNorm(self.shape[-1], self.eps, affine=False)
        if len(self.shape) > 1:
            g = delta if gamma is None else delta * gamma.reshape(self.shape).astype(delta.dtype)
            dz = last.backward(last.forward({}, z)[1], g)[0]
        return dz, grads


@bug("", layer_norm(), refused_by="primal_agrees")
class EpsOutsideTheRoot(m.LayerNorm):
    def forward(self, params, z):
        plain = type(self).__mro__[1](self.shape, 1e-30, self.affine)
        y, _ = plain.forward(params, z)
        axes = tuple(range(-len(self.shape), 0))
        deviation = z.std(axes, keepdims=True)
        beta = params.get("beta", 0)
        return ((y - beta) * (deviation / (deviation + z.dtype.type(self.eps))) + beta), super().forward(params, z)[1]


@bug("term_along_axis", rms_norm())
class MeanSubtractedInBackward(m.RMSNorm):
    def _pull_back(self, g, block):
        super()._pull_back(g, block)
        g -= Rows().mean(g)


@bug("primal_changed", rms_norm(), silent=rms_norm(**ONES))
class RMSNormGammaIgnoredInBackward(m.RMSNorm):
    def backward(self, cache, delta):
        z, _, blocks = cache
        return super().backward((z, None, blocks), delta)


@bug("evaluation_statistics", rms_norm())
class MeanSquareDetached(m.RMSNorm):
    def _pull_back(self, g, block):
        g *= block.scale
