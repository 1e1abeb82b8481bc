"""Layers of linear algebra, windows and statistics, one file each."""

from .avg_pool2d import AvgPool2d as AvgPool2d
from .batch_norm import BatchNorm as BatchNorm
from .conv2d import Conv2d as Conv2d
from .conv_transpose2d import ConvTranspose2d as ConvTranspose2d
from .dropout import Dropout as Dropout
from .embedding import Embedding as Embedding
from .flatten import Flatten as Flatten
from .gru import GRU as GRU
from .layer_norm import LayerNorm as LayerNorm
from .linear import Linear as Linear
from .lstm import LSTM as LSTM
from .max_pool2d import MaxPool2d as MaxPool2d
from .multi_head_attention import MultiHeadAttention as MultiHeadAttention
from .rms_norm import RMSNorm as RMSNorm
