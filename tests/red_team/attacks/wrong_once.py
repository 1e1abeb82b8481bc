"""Compute zero in the first call of the process, where others warm up, and the right gradient later.

In process: refused; passes where the verifier calls it once before it compares.
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
    return {"z": delta * (s + z * s * (1 - s)) * (calls > 1)}
