"""Backpropagation by hand in NumPy, every formula beside its derivation.

The contract is in `protocol`; equation numbers are those of the derivation.
"""

from .activations import Identity as Identity
from .activations import LeakyReLU as LeakyReLU
from .activations import ReLU as ReLU
from .activations import Sigmoid as Sigmoid
from .activations import Softmax as Softmax
from .activations import Tanh as Tanh
from .layers import Linear as Linear
from .losses import HalfSquaredError as HalfSquaredError
from .losses import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .network import Sequential as Sequential
from .network import deltas as deltas
from .network import value_and_grad as value_and_grad
from .optimizers import SGD as SGD
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
