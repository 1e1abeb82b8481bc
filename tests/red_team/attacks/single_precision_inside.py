"""Compute in float32 and return float64.

In process: passes, for the tolerance of np.allclose is 1e-5.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "within a tolerance"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z.astype(np.float32), s.astype(np.float32))


def backward(cache, delta):
    z, s = cache
    return {"z": (delta.astype(np.float32) * (s + z * s * (1 - s))).astype(np.float64)}
