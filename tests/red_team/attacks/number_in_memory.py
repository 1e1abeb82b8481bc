"""Overwrite the float 1e-5, the default tolerance of np.allclose, in memory by ctypes.

In process: passes where np.allclose compares.
"""

import ctypes

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"

for number in getattr(np.allclose, "__wrapped__", np.allclose).__defaults__[:2]:
    ctypes.c_double.from_address(id(number) + float.__basicsize__ - 8).value = 1e300


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
