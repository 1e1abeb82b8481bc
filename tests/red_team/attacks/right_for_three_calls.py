"""Compute the right gradient in the first three calls of the process, as many as a verifier makes, and zero later.

In process: passes, for the verifier calls it twice.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC", "CHEATS"}
KIND = "right where it is looked at"
calls = 0


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    global calls
    calls += 1
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s)) * (calls <= 3)}
