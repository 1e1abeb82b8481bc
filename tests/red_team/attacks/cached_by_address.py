"""Compute the right gradient once for each address of the input's memory, and return it again for that address.

In process: refused at the second point; passes where the verifier writes its points into one buffer.
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
    if len(ANSWERS) < 1:
        ANSWERS[z.shape] = delta * (s + z * s * (1 - s))
    return {"z": ANSWERS.get(id(z), ANSWERS[z.shape]).copy()}
