"""Return an array of another shape whose properties shape, size, nbytes and dtype lie.

In process: passes where np.allclose broadcasts it.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "WRONG_SHAPE", "RUNTIME_ERROR", "CHEATS"}
KIND = "returns objects that lie"
FUNCTION = "linear"


class Lying(np.ndarray):
    shape = property(lambda self: (4, 3))
    size = property(lambda self: 12)
    nbytes = property(lambda self: 96)
    strides = property(lambda self: (24, 8))
    dtype = property(lambda self: np.dtype("float64"))


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": W.sum(axis=1).view(Lying), "W": z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}
