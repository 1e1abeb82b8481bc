"""Read address 0 by ctypes.

In process: a segmentation fault.
"""

import ctypes

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    ctypes.string_at(0)
    return {"z": np.zeros_like(z)}
