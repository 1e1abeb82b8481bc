"""Stop the own process by SIGSTOP: it neither answers nor ends.

In process: the verifier stops.
"""

import os
import signal

import numpy as np

EXPECTED = {"TIMEOUT", "WRONG_NUMERICS"}  # the first process of a namespace does not stop itself
KIND = "ends the process, or forges a report"
SECONDS = 1.0


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    os.kill(os.getpid(), signal.SIGSTOP)
    return {"z": np.zeros_like(z)}
