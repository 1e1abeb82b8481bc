"""Close every file descriptor, the connection to the judge among them.

In process: refused; the message is lost.
"""

import os

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    os.closerange(0, 4096)
    return {"z": np.zeros_like(z)}
