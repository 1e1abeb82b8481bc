"""Return the cotangent's own buffer as the gradient.

In process: refused.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "CHEATS"}
KIND = "uses the verifier's arrays"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": delta}
