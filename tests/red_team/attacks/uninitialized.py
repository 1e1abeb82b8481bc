"""Return memory that nobody has written to, in the hope that the oracle's answer lay there.

In process: refused; passes where the memory of an answer was just freed.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC", "CHEATS"}
KIND = "uses the verifier's arrays"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.empty_like(z)}
