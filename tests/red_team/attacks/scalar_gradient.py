"""Return one number for all entries: the gradient of the sum of a linear function is constant along an axis.

In process: passes, for the gradient of b in the sum is the same in every entry.
"""

import numpy as np

EXPECTED = {"WRONG_SHAPE", "WRONG_DTYPE", "WRONG_NUMERICS"}
KIND = "wrong shapes and dtypes, or nothing"
FUNCTION = "linear"


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": float(delta.sum() / delta.shape[1])}
