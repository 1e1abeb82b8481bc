"""Return keys that a verifier might read as its own: a status, and what it expects.

In process: refused or an error: there is no primal of that name.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "WRONG_SHAPE", "RUNTIME_ERROR", "CHEATS"}
KIND = "returns objects that lie"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    zeros = np.zeros_like(z)
    return {"z": zeros, "status": "PASSED", "expected": zeros, "tolerance": np.inf, "kind": "PASSED", "arrays": []}
