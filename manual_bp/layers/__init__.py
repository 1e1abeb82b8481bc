"""Layers with parameters, one file each."""

from .dropout import Dropout as Dropout
from .embedding import Embedding as Embedding
from .gru import GRU as GRU
from .linear import Linear as Linear
from .lstm import LSTM as LSTM
from .multi_head_attention import MultiHeadAttention as MultiHeadAttention
