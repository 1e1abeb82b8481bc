"""What max and average pooling share: fields, windows, and what they refuse."""

from __future__ import annotations

from abc import ABC
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..protocol import Array, Params
from ..validation import require_flag, require_images, require_names
from .windows import Pair, Windows, pair, require_windows

_NO_NAMES: frozenset[str] = frozenset()


class Pooling(ABC):
    """A frozen dataclass with kernel, stride, padding, ceil_mode, and perhaps dilation; there is nothing to learn."""

    kernel: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    dilation: Any = (1, 1)

    def __post_init__(self) -> None:
        """Make pairs of the fields; refuse what makes no windows."""
        set_ = object.__setattr__
        set_(self, "kernel", pair(self, "kernel", self.kernel))
        set_(self, "stride", self.kernel if self.stride is None else pair(self, "stride", self.stride))
        set_(self, "padding", pair(self, "padding", self.padding, least=0))
        set_(self, "dilation", pair(self, "dilation", self.dilation))
        require_flag(self, "ceil_mode", self.ceil_mode)
        if any(2 * a > k for a, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(
                f"{type(self).__name__}: padding: expected at most half of the kernel, {self.kernel}, "
                f"got {self.padding}"
            )

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: there is nothing to learn."""
        return {}

    def _counted(self, params: Params, z: Array) -> Pair:
        """Return how many windows the images have; refuse what is no image, or has a window with nothing in it."""
        require_images(self, "forward", "z", z)
        require_names(self, "forward", "params", params, _NO_NAMES)
        extent = z.shape[2:]
        count = require_windows(self, windows_of(self), extent)
        if not held(windows_of(self), extent).all():
            raise ValueError(
                f"{type(self).__name__}.forward: z: images of {extent} fall between the taps of a window: "
                f"kernel {self.kernel}, dilation {self.dilation}, padding {self.padding}"
            )
        return count


@lru_cache
def windows_of(layer: Pooling) -> Windows:
    """Return the windows that a pooling layer looks through."""
    (top, left) = layer.padding
    return Windows(layer.kernel, layer.stride, layer.dilation, ((top, top), (left, left)), layer.ceil_mode)


@lru_cache
def held(windows: Windows, extent: Pair, *, padding: bool = False) -> Array:
    """Return of how many taps each window (rows, columns) holds an entry of the image, or of its padding too."""
    result = windows.held(extent, padding=padding)
    result.flags.writeable = False
    return result
