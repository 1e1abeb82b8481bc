"""Return an array of 2^40 entries that takes no memory, for its strides are zero: whoever copies it runs out of memory.

In process: an error in the verifier.
"""

import numpy as np

EXPECTED = {"WRONG_SHAPE", "RUNTIME_ERROR", "CHEATS"}
KIND = "wrong shapes and dtypes, or nothing"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.broadcast_to(np.zeros(1), (2**20, 2**20))}
