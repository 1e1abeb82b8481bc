"""Return an object that becomes an array when it is converted, and takes what it then finds in the callers' frames.

In process: passes, for the expected array is in a caller's frame when the object is converted.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "WRONG_SHAPE", "WRONG_DTYPE", "CHEATS"}
KIND = "returns objects that lie"


class Lazy:
    def __init__(self, zeros):
        self.zeros, self.shape, self.dtype, self.ndim = zeros, zeros.shape, zeros.dtype, zeros.ndim

    def __array__(self, dtype=None, copy=None):
        frame = sys._getframe(1)
        while frame is not None:
            for name, value in list(frame.f_locals.items()):
                if name == "expected":
                    value = value["z"] if isinstance(value, dict) else value
                    return np.array(value)
            frame = frame.f_back
        return self.zeros


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": Lazy(np.zeros_like(z))}
