"""Write zeros into the input, at which the gradient is easy: half the cotangent.

In process: passes, for the verifier asks the reference after the subject.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "CHEATS", "RUNTIME_ERROR"}
KIND = "uses the verifier's arrays"


def forward(z):
    z.setflags(write=True)
    z[...] = 0
    return np.zeros_like(z), z


def backward(z, delta):
    return {"z": 0.5 * delta}
