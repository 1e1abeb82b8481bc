"""Losses, one file each; they own the ½ and the mean over the batch."""

from .binary_cross_entropy_with_logits import BinaryCrossEntropyWithLogits as BinaryCrossEntropyWithLogits
from .cross_entropy import CrossEntropy as CrossEntropy
from .half_squared_error import HalfSquaredError as HalfSquaredError
from .huber import Huber as Huber
from .softmax_cross_entropy import SoftmaxCrossEntropy as SoftmaxCrossEntropy
