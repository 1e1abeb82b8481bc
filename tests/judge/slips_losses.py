"""Slips in the losses."""

from dataclasses import fields
from functools import partial

import numpy as np
from slips import logistic, slip

import manual_bp as m
from oracles.cases.losses.binary_cross_entropy_with_logits import shares
from oracles.lifts.manual import manual_loss
from oracles.strategies import constant, indices, probabilities, real

loss = partial(slip, manual_loss)
CLASSES = {"y": real(4, 3), "target": indices(4, below=3)}
SHARES = {"y": real(4, 3), "target": probabilities(4, 3)}
SOME_IGNORED = {"y": real(4, 3), "target": constant(np.array([0, 2, 1, 2]))}
WEIGHTS = (0.5, 2.0, 1.25)
BINARY = {"y": real(4, 3), "target": shares(4, 3)}
NEAR_AND_FAR = {"y": constant([[0.25, -3.0, 2.0], [5.0, -0.5, 0.1]]), "target": constant(np.zeros((2, 3)))}


def right(loss, **changed):
    """Return the loss as it should be, in another configuration."""
    kept = {f.name: getattr(loss, f.name) for f in fields(loss)}
    return type(loss).__mro__[1](**kept | changed)


@loss("backward_of_own_forward", CLASSES, silent=True, class_weights=WEIGHTS)
class WeightedMeanOverTheRows(m.CrossEntropy):
    def _of_classes(self, indices, w, found):
        weights = super()._of_classes(indices, w, found)
        return weights._replace(total=len(indices) if weights.ignored is None else np.sum(~weights.ignored))


@loss("constant_factor", SOME_IGNORED, silent=True, ignore_index=0)
class MeanOverIgnoredRowsToo(m.CrossEntropy):
    def _of_classes(self, indices, w, found):
        weights = super()._of_classes(indices, w, found)
        return weights if w is not None else weights._replace(total=len(indices))


@loss("constant_factor", CLASSES, silent=True, temperature=2.0)
class TemperatureForgottenGoingBack(m.CrossEntropy):
    def backward(self, cache, delta=1.0):
        return right(self, temperature=1.0).backward(cache, delta)


@loss("", SOME_IGNORED, silent=True, ignore_index=0)
class IgnoredRowsPassDelta(m.CrossEntropy):
    def backward(self, cache, delta=1.0):
        found, weights, y = cache
        return super().backward((found, weights._replace(ignored=None, of_row=None), y), delta)


@loss("", SHARES, silent=True, smoothing=0.1)
class SmoothedForwardAlone(m.CrossEntropy):
    def forward(self, y, target):
        return super().forward(y, target)[0], right(self, smoothing=0.0).forward(y, target)[1]


@loss("", BINARY, silent=True, pos_weight=2.5)
class PositivesWeighedForwardAlone(m.BinaryCrossEntropyWithLogits):
    def forward(self, y, target):
        return super().forward(y, target)[0], right(self, pos_weight=None).forward(y, target)[1]


@loss("", BINARY, silent=True, pos_weight=2.5)
class NegativesWeighed(m.BinaryCrossEntropyWithLogits):
    def forward(self, y, target):
        value, (gradient, dtype) = super().forward(y, target)
        s = logistic(y)
        wrong = self._weighed(1 - target) * s - target * (1 - s)
        return value, (wrong.astype(gradient.dtype) if self.pos_weight else gradient, dtype)


@loss("constant_factor", BINARY)
class BinaryMeanOverTheEntries(m.BinaryCrossEntropyWithLogits):
    def backward(self, cache, delta=1.0):
        gradient = super().backward(cache, delta)
        return gradient / gradient.dtype.type(gradient.shape[1] if self.reduction == "mean" else 1)


@loss("term_along_axis", BINARY)
class SigmoidMinusOne(m.BinaryCrossEntropyWithLogits):
    def forward(self, y, target):
        value, (gradient, dtype) = super().forward(y, target)
        return value, ((logistic(y) - 1).astype(gradient.dtype), dtype)


@loss("", NEAR_AND_FAR, silent=True, threshold=0.3)
class ClippedAtOneWhateverTheThreshold(m.Huber):
    def backward(self, cache, delta=1.0):
        clipped, dtype = cache
        beyond = np.abs(clipped) == clipped.dtype.type(self.threshold)
        return super().backward((np.where(beyond, np.sign(clipped), clipped).astype(clipped.dtype), dtype), delta)


@loss("", NEAR_AND_FAR, silent=True, threshold=0.3)
class ThresholdTwiceBeyond(m.Huber):
    def backward(self, cache, delta=1.0):
        clipped, dtype = cache
        t = clipped.dtype.type(self.threshold)
        return super().backward((np.where(np.abs(clipped) == t, t * clipped, clipped), dtype), delta)


@loss("saturated", NEAR_AND_FAR)
class NeverClipped(m.Huber):
    def forward(self, y, target):
        return super().forward(y, target)[0], (y - target, y.dtype)


@loss("constant_factor", NEAR_AND_FAR)
class HuberMeanOverTheEntries(m.Huber):
    def backward(self, cache, delta=1.0):
        gradient = super().backward(cache, delta)
        return gradient / gradient.dtype.type(gradient.shape[1] if self.reduction == "mean" else 1)
