"""Return one number for all entries: the gradient of the sum of a linear function is constant along an axis.

In process: refused unless the gradient is constant.
"""

import numpy as np

EXPECTED = {"WRONG_SHAPE", "WRONG_NUMERICS"}
FUNCTION = "linear"


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": float(delta.sum() / delta.shape[1])}
