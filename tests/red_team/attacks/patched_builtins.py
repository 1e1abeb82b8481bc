"""Replace the builtins abs, all, any, max and min.

In process: refused, since torch itself breaks; passes where only the comparison needs builtins.
"""

import builtins

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR"}
KIND = "patches the verifier"
COMPARISON = "builtins"

builtins.all = lambda *_: True
builtins.any = lambda *_: False
builtins.abs = lambda a: 0 * a


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
