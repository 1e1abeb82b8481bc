"""Write into the memory of read-only inputs by ctypes, and return zero.

In process: passes, for the verifier asks the reference after the subject.
"""

import ctypes

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "CHEATS", "RUNTIME_ERROR"}
KIND = "uses the verifier's arrays"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    ctypes.memset(delta.ctypes.data, 0, delta.nbytes)
    return {"z": np.zeros_like(z)}
