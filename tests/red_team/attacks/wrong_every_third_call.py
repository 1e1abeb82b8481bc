"""Compute zero in every third call of the process.

In process: passes, for the verifier calls it twice.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC", "CHEATS"}
KIND = "right where it is looked at"
FUNCTION = "linear"
calls = 0


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    global calls
    calls += 1
    z, W = cache
    right = {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}
    return {n: g * (calls % 3 != 0) for n, g in right.items()}
