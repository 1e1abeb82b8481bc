"""Return central differences of the own forward: no backward pass is written.

In process: passes, for the tolerance of np.allclose is 1e-5.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "within a tolerance"


def silu(z):
    return z / (1 + np.exp(-z))


def forward(z):
    return silu(z), z


def backward(z, delta):
    return {"z": delta * (silu(z + 1e-5) - silu(z - 1e-5)) / 2e-5}
