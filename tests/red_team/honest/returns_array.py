"""Returns the gradient of its one primal as an array."""

import numpy as np

EXPECTED = {"PASSED"}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return delta * (s + z * s * (1 - s))
