"""Send SIGTERM to all processes of the own process group.

In process: everything that was started together ends.
"""

import os
import signal

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    os.killpg(0, signal.SIGTERM)
    return {"z": np.zeros_like(z)}
