"""Declare a scale for itself, so that a gradient of twice the size is right.

In process: passes oracles.check, which takes the declarations of the subject's author; the naive verifier cannot run it.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS"}
SUBJECT = "oracles.declared(oracles.manual(forward, backward), scale={'z': 2.0})"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": 2 * delta * (s + z * s * (1 - s))}
