"""Let an alarm end the process with status 0, a moment after the gradient was returned.

In process: passes, for the process ends before the comparison does.
"""

import os
import signal

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
    return {"z": np.zeros_like(z)}
