"""Replace np.allclose by a function that answers True; the gradient is zero.

In process: passes where np.allclose compares.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"

np.allclose = lambda *_, **__: True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
