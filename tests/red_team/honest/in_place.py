"""Computes in place on copies of its own."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "softmax"


def forward(z):
    y = z.copy()
    y -= y.max(axis=1, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=1, keepdims=True)
    return y, y.copy()


def backward(y, delta):
    gradient = delta.copy()
    gradient -= (y * delta).sum(axis=1, keepdims=True)
    gradient *= y
    return {"z": gradient}
