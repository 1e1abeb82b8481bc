"""Send SIGKILL to the parent process.

In process: the process that started the verifier ends.
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
    if os.getppid() > 1:
        try:
            os.kill(os.getppid(), signal.SIGKILL)
        except OSError:
            pass
    return {"z": np.zeros_like(z)}
