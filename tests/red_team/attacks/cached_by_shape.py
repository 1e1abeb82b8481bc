"""Compute the right gradient once for each shape, and return it again at every later point of that shape.

In process: passes at one point for each shape; refused at the second.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC", "CHEATS"}
KIND = "right where it is looked at"
ANSWERS = {}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    if z.shape not in ANSWERS:
        ANSWERS[z.shape] = delta * (s + z * s * (1 - s))
    return {"z": ANSWERS[z.shape].copy()}
