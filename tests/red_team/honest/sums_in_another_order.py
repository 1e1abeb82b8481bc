"""Sums from the last row to the first, in compensated arithmetic."""

import math

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "linear"


def forward(z, W, b):
    return np.array([[math.fsum(row * column) for column in W.T] for row in z]).reshape(len(z), -1) + b, (z, W)


def backward(cache, delta):
    z, W = cache
    db = np.zeros((1, delta.shape[1]), delta.dtype)
    for row in delta[::-1]:
        db += row
    return {"z": (W @ delta.T).T, "W": sum(np.outer(a, d) for a, d in zip(z[::-1], delta[::-1])), "b": db}
