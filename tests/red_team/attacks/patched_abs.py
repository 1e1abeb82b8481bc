"""Replace np.abs by a function that returns zeros, so that every difference is zero.

In process: passes where np.abs measures the difference.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"
COMPARISON = "np.abs"

np.abs = np.absolute = lambda a, *_, **__: np.zeros_like(a)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": 3 * delta}
