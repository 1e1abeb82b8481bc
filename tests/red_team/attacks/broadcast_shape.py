"""Return the gradient of b without its first axis: it has other dimensions and broadcasts.

In process: passes where np.allclose broadcasts.
"""

import numpy as np

EXPECTED = {"WRONG_SHAPE"}
KIND = "wrong shapes and dtypes, or nothing"
FUNCTION = "linear"


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(axis=0)}
