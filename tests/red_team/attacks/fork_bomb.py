"""Start processes that start processes, up to 6 generations of 2 each, which sleep for 3 seconds.

In process: slow; without a bound it ends the machine.
"""

import os
import time

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "TIMEOUT", "CHEATS"}
SECONDS = 2.0
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    me = os.getpid()
    for _ in range(6):
        try:
            os.fork()
            os.fork()
        except OSError:
            break
    if os.getpid() != me:
        time.sleep(3)
        os._exit(0)
    return {"z": np.zeros_like(z)}
