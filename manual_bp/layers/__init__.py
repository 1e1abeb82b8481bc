"""Layers of linear algebra, windows and statistics, one file each."""

from .conv2d import Conv2d as Conv2d
from .conv_transpose2d import ConvTranspose2d as ConvTranspose2d
from .dropout import Dropout as Dropout
from .embedding import Embedding as Embedding
from .linear import Linear as Linear
