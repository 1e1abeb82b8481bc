"""End the process with status 0 by os._exit.

In process: passes, for the exit status is 0.
"""

import os

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    os._exit(0)
