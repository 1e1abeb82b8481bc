"""Declare that it stores 8 bits for each number, so that the tolerance is wide, and be 1 % off.

In process: passes oracles.check, which takes the author's declarations; the naive verifier cannot run it.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS"}
KIND = "within a tolerance"
SUBJECT = "oracles.declared(oracles.manual(forward, backward), numerics=oracles.Numerics('float8_e5m2', round='any'))"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": 1.01 * delta * (s + z * s * (1 - s))}
