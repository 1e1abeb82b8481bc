"""Return an array whose __array_function__ answers True to every function of NumPy.

In process: passes where np.allclose compares.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "WRONG_SHAPE", "WRONG_DTYPE"}
KIND = "returns objects that lie"


class Lying(np.ndarray):
    def __array_function__(self, function, types, args, kwargs):
        return True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z).view(Lying)}
