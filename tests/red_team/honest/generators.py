"""Yields the rows of the gradient from a generator, and builds the array of them."""

import numpy as np

EXPECTED = {"PASSED"}


def slopes(z):
    for row in z:
        s = 1 / (1 + np.exp(-row))
        yield s + row * s * (1 - s)


def forward(z):
    return z / (1 + np.exp(-z)), (row.copy() for row in [z])


def backward(cache, delta):
    z = next(cache)
    return {"z": delta * np.stack([*slopes(z)]).astype(z.dtype)}
