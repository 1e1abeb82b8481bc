"""Replace np.random.default_rng and the functions of np.random, so that all inputs that are drawn later are zero.

In process: passes, for the gradient at zero is half the cotangent.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"


class Zeros:
    def __getattr__(self, name):
        return lambda *shape, size=(), **_: np.zeros(shape[0] if shape else size)


np.random.default_rng = np.random.RandomState = lambda *_, **__: Zeros()
np.random.seed(0)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": 0.5 * delta}
