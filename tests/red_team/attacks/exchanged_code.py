"""Exchange the code of np.allclose: identity, name and defaults stay.

In process: passes where np.allclose compares.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"

inner = getattr(np.allclose, "__wrapped__", np.allclose)
inner.__code__ = (lambda a, b, rtol=0, atol=0, equal_nan=False: True).__code__


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
