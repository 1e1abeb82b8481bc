"""Layers of linear algebra, windows and statistics, one file each."""

from .conv2d import Conv2d as Conv2d
from .conv_transpose2d import ConvTranspose2d as ConvTranspose2d
from .linear import Linear as Linear
