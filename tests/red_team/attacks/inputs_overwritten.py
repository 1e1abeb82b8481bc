"""Write zeros into the cotangent before it returns zero, so that the reference gets a cotangent of zero as well.

In process: passes, for the verifier asks the reference after the subject.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "CHEATS", "RUNTIME_ERROR"}
KIND = "uses the verifier's arrays"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    delta.setflags(write=True)
    delta[...] = 0
    return {"z": np.zeros_like(z)}
