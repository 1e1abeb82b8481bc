"""Raise KeyboardInterrupt, as if the user had ended the verifier.

In process: the verifier ends.
"""

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    raise KeyboardInterrupt
