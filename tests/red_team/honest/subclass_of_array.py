"""Computes with a subclass of np.ndarray that has a name and prints itself, and returns it."""

import numpy as np

EXPECTED = {"PASSED"}


class Named(np.ndarray):
    name = "activation"

    def __array_finalize__(self, other):
        self.name = getattr(other, "name", self.name)

    def __repr__(self):
        return f"{self.name}: {super().__repr__()}"


def forward(z):
    z = z.view(Named)
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
