"""Be a Rule whose pullback returns an enclosure with an infinite radius instead of an array.

In process: depends on the judge; the naive verifier cannot run it.
"""

import numpy as np

import oracles

EXPECTED = {"WRONG_NUMERICS", "WRONG_SHAPE", "WRONG_DTYPE", "RUNTIME_ERROR", "CHEATS"}
KIND = "returns objects that lie"
SUBJECT = "subject"


def evaluate(z):
    zeros = np.zeros_like(z)
    return z / (1 + np.exp(-z)), lambda delta: {"z": oracles.Enclosure(zeros, np.full_like(z, np.inf))}


subject = oracles.Rule(evaluate, "silu")
