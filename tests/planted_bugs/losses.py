"""Bugs in the losses."""

from dataclasses import fields

import numpy as np

import manual_bp as m
from manual_bp._reduction import scale_rows
from oracles.references.cross_entropy import shares
from oracles.strategies import constant, indices, nonnegative, probabilities, real
from planted_bugs.planting import bug, case_of, logistic

CLASSES = indices(4, below=3)
SHARES = probabilities(4, 3)
SOME_IGNORED = constant([0, 2, 1, 2])
WEIGHTS = (0.5, 2.0, 1.25)
NEAR_AND_FAR = constant([[0.25, -3.0, 2.0], [5.0, -0.5, 0.1]])


def half(**options):
    return case_of(m.HalfSquaredError(**options), y=real(4, 3), target=real(4, 3))


def softmax(target=CLASSES, **options):
    return case_of(m.SoftmaxCrossEntropy(**options), y=real(4, 3), target=target)


def cross_entropy(target=CLASSES, **options):
    return case_of(m.CrossEntropy(**options), y=real(4, 3), target=target)


def binary(**options):
    return case_of(m.BinaryCrossEntropyWithLogits(**options), y=real(4, 3), target=shares(4, 3))


def huber(**options):
    return case_of(m.Huber(**options), y=NEAR_AND_FAR, target=constant(np.zeros((2, 3))))


def reconfigured(loss, **changed):
    """Return the correct loss in another configuration."""
    options = {f.name: getattr(loss, f.name) for f in fields(loss)}
    return type(loss).__mro__[1](**options | changed)


def over_entries(loss, gradient):
    """Divide the gradient of a mean by the number of columns too."""
    return gradient / gradient.dtype.type(gradient.shape[1] if loss.reduction == "mean" else 1)


def over_rows(loss, gradient):
    """Divide the gradient by the number of rows unless the loss is a mean."""
    return gradient / gradient.dtype.type(1 if loss.reduction == "mean" else max(len(gradient), 1))


@bug("constant_factor", half(), refused_by="adjoint_of_own_primal", quick=True)
class GradientOfTheWholeSquare(m.HalfSquaredError):
    def backward(self, cache, delta=1.0):
        return 2 * super().backward(cache, delta)


@bug("constant_factor", half())
class SquaredErrorMeanOverTheEntries(m.HalfSquaredError):
    def backward(self, cache, delta=1.0):
        return over_entries(self, super().backward(cache, delta))


@bug("constant_factor", half(reduction="sum"), silent=half())
class SquaredErrorAlwaysAMean(m.HalfSquaredError):
    def backward(self, cache, delta=1.0):
        return over_rows(self, super().backward(cache, delta))


@bug("", softmax(nonnegative(4, 3)), silent=softmax(), quick=True)
class TargetsAssumedToSumToOne(m.SoftmaxCrossEntropy):
    def forward(self, y, target):
        value, inner = super().forward(y, target)
        return value, (y, target, inner)

    def backward(self, cache, delta=1.0):
        y, target, inner = cache
        if target.ndim == 1:
            return super().backward(inner, delta)
        e = np.exp(y - y.max(1, keepdims=True))
        return scale_rows(self, e / e.sum(1, keepdims=True) - target, delta, self.reduction, y.dtype)


@bug("constant_factor", softmax())
class SoftmaxMeanOverTheClasses(m.SoftmaxCrossEntropy):
    def backward(self, cache, delta=1.0):
        return over_entries(self, super().backward(cache, delta))


@bug("constant_factor", softmax(reduction="sum"), silent=softmax())
class SoftmaxAlwaysAMean(m.SoftmaxCrossEntropy):
    def backward(self, cache, delta=1.0):
        return over_rows(self, super().backward(cache, delta))


@bug("constant_factor", cross_entropy(class_weights=WEIGHTS), silent=cross_entropy())
class WeightedMeanDividedByTheRows(m.CrossEntropy):
    def _of_classes(self, indices, w, exp):
        weights = super()._of_classes(indices, w, exp)
        return weights._replace(total=len(indices) if weights.ignored is None else np.sum(~weights.ignored))


@bug("constant_factor", cross_entropy(SOME_IGNORED, ignore_index=0), silent=cross_entropy(SOME_IGNORED))
class MeanCountsIgnoredRows(m.CrossEntropy):
    def _of_classes(self, indices, w, exp):
        weights = super()._of_classes(indices, w, exp)
        return weights if w is not None else weights._replace(total=len(indices))


@bug("constant_factor", cross_entropy(temperature=2.0), silent=cross_entropy())
class TemperatureIgnoredInBackward(m.CrossEntropy):
    def backward(self, cache, delta=1.0):
        return reconfigured(self, temperature=1.0).backward(cache, delta)


@bug("", cross_entropy(SOME_IGNORED, ignore_index=0), silent=cross_entropy(SOME_IGNORED))
class IgnoredRowsGetGradient(m.CrossEntropy):
    def backward(self, cache, delta=1.0):
        exp, weights, y = cache
        return super().backward((exp, weights._replace(ignored=None, row_weights=None), y), delta)


@bug("", cross_entropy(SHARES, smoothing=0.1), silent=cross_entropy(SHARES))
class LabelSmoothingInForwardOnly(m.CrossEntropy):
    def forward(self, y, target):
        return super().forward(y, target)[0], reconfigured(self, smoothing=0.0).forward(y, target)[1]


@bug("", binary(pos_weight=2.5), silent=binary())
class PositiveWeightInForwardOnly(m.BinaryCrossEntropyWithLogits):
    def forward(self, y, target):
        return super().forward(y, target)[0], reconfigured(self, pos_weight=None).forward(y, target)[1]


@bug("", binary(pos_weight=2.5), silent=binary())
class PositiveWeightOnNegativesToo(m.BinaryCrossEntropyWithLogits):
    def forward(self, y, target):
        value, (gradient, dtype) = super().forward(y, target)
        wrong = self._weigh(1 - target) * logistic(y) - target * logistic(-y)
        return value, (wrong.astype(gradient.dtype) if self.pos_weight else gradient, dtype)


@bug("constant_factor", binary())
class BinaryMeanOverTheEntries(m.BinaryCrossEntropyWithLogits):
    def backward(self, cache, delta=1.0):
        return over_entries(self, super().backward(cache, delta))


@bug("primal_changed", binary())
class EveryTargetTakenForOne(m.BinaryCrossEntropyWithLogits):
    def forward(self, y, target):
        value, (gradient, dtype) = super().forward(y, target)
        return value, (-logistic(-y).astype(gradient.dtype), dtype)


@bug("", huber(threshold=0.3), silent=huber())
class ClippedAtOne(m.Huber):
    def backward(self, cache, delta=1.0):
        clipped, dtype = cache
        beyond = np.abs(clipped) == clipped.dtype.type(self.threshold)
        return super().backward((np.where(beyond, np.sign(clipped), clipped).astype(clipped.dtype), dtype), delta)


@bug("", huber(threshold=0.3), silent=huber())
class ThresholdSquared(m.Huber):
    def backward(self, cache, delta=1.0):
        clipped, dtype = cache
        t = clipped.dtype.type(self.threshold)
        return super().backward((np.where(np.abs(clipped) == t, t * clipped, clipped), dtype), delta)


@bug("saturated", huber())
class GradientNotClipped(m.Huber):
    def forward(self, y, target):
        return super().forward(y, target)[0], (y - target, y.dtype)


@bug("constant_factor", huber())
class HuberMeanOverTheEntries(m.Huber):
    def backward(self, cache, delta=1.0):
        return over_entries(self, super().backward(cache, delta))
