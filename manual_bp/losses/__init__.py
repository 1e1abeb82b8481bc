"""Losses, one file each; they own the ½ and the mean over the batch."""

from .half_squared_error import HalfSquaredError as HalfSquaredError
from .softmax_cross_entropy import SoftmaxCrossEntropy as SoftmaxCrossEntropy
