"""Backpropagation by hand in NumPy, every formula beside its derivation.

The contract is in `protocol`; equation numbers are those of the derivation.
"""

from .activations import GELU as GELU
from .activations import Identity as Identity
from .activations import LeakyReLU as LeakyReLU
from .activations import LogSoftmax as LogSoftmax
from .activations import PReLU as PReLU
from .activations import ReLU as ReLU
from .activations import Sigmoid as Sigmoid
from .activations import SiLU as SiLU
from .activations import Softmax as Softmax
from .activations import Softplus as Softplus
from .activations import SwiGLU as SwiGLU
from .activations import Tanh as Tanh
from .composites import Parallel as Parallel
from .composites import Residual as Residual
from .layers import AvgPool2d as AvgPool2d
from .layers import BatchNorm as BatchNorm
from .layers import Conv2d as Conv2d
from .layers import ConvTranspose2d as ConvTranspose2d
from .layers import Dropout as Dropout
from .layers import Embedding as Embedding
from .layers import Flatten as Flatten
from .layers import LayerNorm as LayerNorm
from .layers import Linear as Linear
from .layers import MaxPool2d as MaxPool2d
from .layers import RMSNorm as RMSNorm
from .losses import BinaryCrossEntropyWithLogits as BinaryCrossEntropyWithLogits
from .losses import CrossEntropy as CrossEntropy
from .losses import HalfSquaredError as HalfSquaredError
from .losses import Huber as Huber
from .losses import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .network import Sequential as Sequential
from .network import deltas as deltas
from .network import value_and_grad as value_and_grad
from .optimizers import SGD as SGD
from .optimizers import Adam as Adam
from .optimizers import AdamW as AdamW
from .optimizers import Clipped as Clipped
from .optimizers import clip_by_global_norm as clip_by_global_norm
from .persistence import load_params as load_params
from .persistence import save_params as save_params
from .protocol import Array as Array
from .protocol import Cache as Cache
from .protocol import Layer as Layer
from .protocol import Loss as Loss
from .protocol import Optimizer as Optimizer
from .protocol import Params as Params
from .protocol import RowLayer as RowLayer
from .training import FitResult as FitResult
from .training import Progress as Progress
from .training import fit as fit
from .training import minibatches as minibatches
