"""Return an array whose difference from anything is zero, and that equals anything.

In process: passes where differences are measured.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR"}
KIND = "returns objects that lie"
COMPARISON = "np.abs"


class Lying(np.ndarray):
    __array_priority__ = 1000

    def __sub__(self, other):
        return np.zeros(self.shape)

    __rsub__ = __sub__

    def __eq__(self, other):
        return np.ones(self.shape, bool)

    def __abs__(self):
        return np.zeros(self.shape)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return np.zeros(self.shape)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.ones_like(z).view(Lying)}
