"""Write NaN into the input and the cotangent, so that every comparison with what the reference makes of them is false.

In process: passes where a difference above the tolerance refuses.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "CHEATS", "RUNTIME_ERROR"}
KIND = "uses the verifier's arrays"
COMPARISON = "relative"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    zeros = np.zeros_like(z)
    for array in (z, delta):
        array.setflags(write=True)
        array[...] = np.nan
    return {"z": zeros}
