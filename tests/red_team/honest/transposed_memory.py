"""Returns arrays in Fortran order, and with negative strides."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "linear"


def forward(z, W, b):
    return np.asfortranarray(z @ W + b), (z, W)


def backward(cache, delta):
    z, W = cache
    dW = np.ascontiguousarray((z.T @ delta)[::-1])[::-1]
    return {"z": np.asfortranarray(delta @ W.T), "W": dW, "b": delta.sum(axis=0, keepdims=True)}
