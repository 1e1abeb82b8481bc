"""Return the gradients that are easy and leave out that of W.

In process: passes, for the verifier skips None.
"""

import numpy as np

EXPECTED = {"WRONG_SHAPE", "WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS"}
KIND = "wrong shapes and dtypes, or nothing"
FUNCTION = "linear"


def forward(z, W, b):
    return z @ W + b, W


def backward(W, delta):
    return {"z": delta @ W.T, "b": delta.sum(axis=0, keepdims=True), "W": None}
