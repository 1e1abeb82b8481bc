"""Keeps a convention of its own, twice the gradient, and declares it: its adapter divides by two."""

import numpy as np

EXPECTED = {"PASSED"}
SUBJECT = "oracles.declared(oracles.manual(forward, backward), scale={'z': 2.0})"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": 2 * delta * (s + z * s * (1 - s))}
