"""Return random numbers.

In process: refused.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC"}
KIND = "right where it is looked at"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.random.standard_normal(z.shape)}
