"""Replace isinstance and type, so that whatever is returned is an array of the right dtype.

In process: refused; it breaks what comes later in the process.
"""

import builtins

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR"}
KIND = "patches the verifier"

builtins.isinstance = lambda *_: True
builtins.issubclass = lambda *_: True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
