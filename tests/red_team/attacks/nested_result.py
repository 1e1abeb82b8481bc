"""Return a list that contains itself, and lists of 10^5 levels.

In process: an error in the verifier.
"""

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS", "WRONG_SHAPE", "WRONG_DTYPE"}
KIND = "returns objects that lie"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    endless = []
    endless.append(endless)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return {"z": [endless, deep]}
