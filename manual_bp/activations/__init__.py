"""Activations, one file each."""

from .gelu import GELU as GELU
from .identity import Identity as Identity
from .leaky_relu import LeakyReLU as LeakyReLU
from .log_softmax import LogSoftmax as LogSoftmax
from .prelu import PReLU as PReLU
from .relu import ReLU as ReLU
from .sigmoid import Sigmoid as Sigmoid
from .silu import SiLU as SiLU
from .softmax import Softmax as Softmax
from .softplus import Softplus as Softplus
from .swiglu import SwiGLU as SwiGLU
from .tanh import Tanh as Tanh
