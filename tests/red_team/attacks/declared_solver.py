"""Declare that an iterative solver inside stops early, so that the tolerance is as wide as it likes.

In process: passes oracles.check, which takes the author's declarations; the naive verifier cannot run it.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS"}
KIND = "within a tolerance"
SUBJECT = "oracles.declared(oracles.manual(forward, backward), solved_to=0.5)"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
