"""Slips in the activations."""

from functools import partial

import numpy as np
from slips import logistic, slip

import manual_bp as m
from manual_bp.normal import cumulative, density
from oracles.lifts.manual import manual_layer
from oracles.strategies import constant, real

Z = {"z": real(3, 4)}
layer = partial(slip, manual_layer)


@layer("", Z, silent=True, approximate="tanh")
class ExactSlopeOfTheApproximation(m.GELU):
    def with_derivative(self, z):
        return super().with_derivative(z)[0], m.GELU().derivative(z)


@layer("", Z)
class ForgottenDensity(m.GELU):
    def with_derivative(self, z):
        return super().with_derivative(z)[0], cumulative(z)


@layer("", Z)
class DensityWithoutItsTwo(m.GELU):
    def with_derivative(self, z):
        if self.approximate == "tanh":
            return super().with_derivative(z)
        return super().with_derivative(z)[0], cumulative(z) + z * density(z) * z.dtype.type(2**0.5)


@layer("", Z, check="primal_agrees")
class LogisticInPlaceOfTheNormal(m.GELU):
    def with_derivative(self, z):
        return (z * logistic(1.702 * z)).astype(z.dtype), super().with_derivative(z)[1]


@layer("", Z)
class OnlyTheGate(m.SiLU):
    def with_derivative(self, z):
        return super().with_derivative(z)[0], logistic(z).astype(z.dtype)


@layer("", Z)
class SlopeOfTheGateFromTheOutput(m.SiLU):
    def with_derivative(self, z):
        s, (y, _) = logistic(z), super().with_derivative(z)
        return y, (s + z * y * (1 - y)).astype(z.dtype)


@layer("signs", {"z": constant([[0.5, -1.0, 30.0], [40.0, -0.25, 2.0]])})
class NothingPassesOnceSaturated(m.SiLU):
    def with_derivative(self, z):
        y, slope = super().with_derivative(z)
        return y, np.where(z > 20, np.zeros_like(z), slope)


@layer("", Z, silent=True, beta=3.0)
class BetaForgottenInTheSlope(m.Softplus):
    def with_derivative(self, z):
        return super().with_derivative(z)[0], m.Softplus(1.0, self.threshold).derivative(z)


@layer("constant_factor", Z, silent=True, beta=3.0)
class SlopeNotDividedByBeta(m.Softplus):
    def with_derivative(self, z):
        y, slope = super().with_derivative(z)
        return y, slope * z.dtype.type(self.beta)


@layer("signs", {"z": constant([[0.5, -1.0, 3.0], [2.0, -0.25, 1.5]])}, silent=True, beta=3.0, threshold=3.5)
class ThresholdOfWhatIsNotScaled(m.Softplus):
    def with_derivative(self, z):
        y, slope = super().with_derivative(z)
        smooth = m.Softplus(self.beta).derivative(z)
        return y, slope if self.threshold is None else np.where(z > self.threshold, np.ones_like(z), smooth)


@layer("", Z)
class LogisticOfTheOtherTail(m.Softplus):
    def with_derivative(self, z):
        return super().with_derivative(z)[0], super().with_derivative(-z)[1]


@layer("constant_factor", {**Z, "slope": real(1)})
class SlopeOfTheMean(m.PReLU):
    def backward(self, cache, delta):
        dz, dparams = super().backward(cache, delta)
        return dz, {"slope": dparams["slope"] / delta.dtype.type(max(len(delta), 1))}


@layer(
    "reduced_too_far", {"z": real(4, 3, 2), "slope": real(3)}, silent={"z": real(4, 3, 2), "slope": real(1)}, channels=3
)
class EveryChannelTakesAll(m.PReLU):
    def backward(self, cache, delta):
        dz, dparams = super().backward(cache, delta)
        return dz, {"slope": np.full_like(dparams["slope"], dparams["slope"].sum())}


@layer("zeros", {"z": constant([[0.0, 1.5, -2.0], [3.0, 0.0, -1.0]]), "slope": real(1)})
class DeltaPassesAtZero(m.PReLU):
    def backward(self, cache, delta):
        dz, dparams = super().backward(cache, delta)
        return np.where(cache[0] == 0, delta, dz), dparams


@layer("", {"z": real(3, 3)}, silent=True, axis=0)
class BackAlongTheLastAxis(m.Softmax):
    def backward(self, cache, delta):
        y, _ = cache
        return y * (delta - (delta * y).sum(axis=-1, keepdims=True)), {}


@layer("block_diagonal", Z)
class DiagonalAlone(m.Softmax):
    def backward(self, cache, delta):
        y, _ = cache
        return delta * y * (1 - y), {}


@layer("backward_of_own_forward", {"z": real(2, 3, 4)}, silent=True, axis=0)
class ForwardAlongTheLastAxis(m.Softmax):
    def forward(self, params, z):
        return m.Softmax().forward(params, z)

    def backward(self, cache, delta):
        return m.Softmax().backward(cache, delta)


@layer("", {"z": real(3, 3)}, silent=True, axis=0)
class SumAlongTheLastAxis(m.LogSoftmax):
    def backward(self, cache, delta):
        return delta - np.exp(cache[0]) * delta.sum(axis=-1, keepdims=True), {}


@layer("block_diagonal", Z)
class SumOfDeltaForgotten(m.LogSoftmax):
    def backward(self, cache, delta):
        return delta * (1 - np.exp(cache[0])), {}


@layer("", Z)
class MeanInPlaceOfProbabilities(m.LogSoftmax):
    def backward(self, cache, delta):
        axis = self.axis
        return delta - delta.sum(axis=axis, keepdims=True) / delta.dtype.type(delta.shape[axis]), {}


@layer("permuted", Z)
class HalvesExchanged(m.SwiGLU):
    def backward(self, cache, delta):
        dz, _ = super().backward(cache, delta)
        return np.roll(dz, dz.shape[-1] // 2, axis=-1), {}


@layer("wrong_only_in_places", Z)
class GateWithoutItsUnit(m.SwiGLU):
    def forward(self, params, z):
        y, cache = super().forward(params, z)
        return y, (cache, z)

    def backward(self, cache, delta):
        dz, _ = super().backward(cache[0], delta)
        half = delta.shape[-1]
        dz[..., half:] = delta * logistic(cache[1][..., :half])
        return dz, {}


@layer("wrong_only_in_places", Z)
class SlopeOfTheGateAlone(m.SwiGLU):
    def forward(self, params, z):
        y, cache = super().forward(params, z)
        return y, (cache, z)

    def backward(self, cache, delta):
        dz, _ = super().backward(cache[0], delta)
        half = delta.shape[-1]
        g, u = cache[1][..., :half], cache[1][..., half:]
        dz[..., :half] = delta * u * logistic(g)
        return dz, {}
