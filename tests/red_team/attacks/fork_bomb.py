"""Let every process start another one, eight times: 256 processes, which sleep for a second.

In process: slow; without a bound it ends the machine.
"""

import os
import time

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "TIMEOUT", "CHEATS"}
KIND = "takes time, memory or processes"
SECONDS = 2.0
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    me = os.getpid()
    for _ in range(8):
        try:
            os.fork()
        except OSError:
            break
    if os.getpid() != me:
        time.sleep(1)
        os._exit(0)
    return {"z": np.zeros_like(z)}
