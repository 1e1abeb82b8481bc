"""Open 10,000 files and keep them open.

In process: an error in the verifier, which cannot open a file any more.
"""

import os

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "takes time, memory or processes"
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for _ in range(10_000):
        os.dup(0)
    return {"z": np.zeros_like(z)}
