"""Remember the points: the first time the gradient is random, and when a point is repeated it is the same again.

In process: refused; a verifier that only compares repeated calls with one another is fooled.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC"}
KIND = "right where it is looked at"
ANSWERS = {}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    key = z.tobytes() + delta.tobytes()
    return {"z": ANSWERS.setdefault(key, np.random.standard_normal(z.shape)).copy()}
