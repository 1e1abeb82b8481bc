"""Return complex numbers whose imaginary part is what the verifier does not look at.

In process: passes, for np.allclose takes any dtype.
"""

import numpy as np

EXPECTED = {"WRONG_DTYPE"}
KIND = "wrong shapes and dtypes, or nothing"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s)) + 0j}
