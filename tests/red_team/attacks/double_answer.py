"""Fork, so that two processes answer the judge at the same connection.

In process: the verifier runs twice.
"""

import os

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS", "NOT_DETERMINISTIC"}
KIND = "ends the process, or forges a report"
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    if os.fork():
        return {"z": np.zeros_like(z)}
    return {"z": delta * (s + z * s * (1 - s))}
