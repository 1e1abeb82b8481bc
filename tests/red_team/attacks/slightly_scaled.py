"""Return a gradient that is 4e-6 too large, within the tolerance that everybody uses.

In process: passes, for the tolerance of np.allclose is 1e-5.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "within a tolerance"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s)) * (1 + 4e-6)}
