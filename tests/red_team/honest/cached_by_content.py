"""Keeps the results of a pure function by the content of the input, and returns copies."""

from functools import lru_cache

import numpy as np

EXPECTED = {"PASSED"}


@lru_cache(maxsize=8)
def slope(content, dtype, shape):
    z = np.frombuffer(content, dtype).reshape(shape)
    s = 1 / (1 + np.exp(-z))
    return s + z * s * (1 - s)


def forward(z):
    return z / (1 + np.exp(-z)), z


def backward(z, delta):
    return {"z": delta * slope(z.tobytes(), z.dtype.str, z.shape)}
