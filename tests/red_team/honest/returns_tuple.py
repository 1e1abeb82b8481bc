"""Returns the gradients as a tuple, in the order of the primals."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "linear"


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return delta @ W.T, z.T @ delta, delta.sum(axis=0, keepdims=True)
