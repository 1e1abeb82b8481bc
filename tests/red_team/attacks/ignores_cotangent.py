"""Compute the gradient of the sum of the output, whatever the cotangent is.

In process: passes, for the verifier's cotangent is that of y.sum().
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "right where it is looked at"
FUNCTION = "linear"


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    ones = np.ones_like(delta)
    return {"z": ones @ W.T, "W": z.T @ ones, "b": ones.sum(axis=0, keepdims=True)}
