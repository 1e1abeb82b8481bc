"""Start 2000 threads.

In process: slow.
"""

import threading
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
    for _ in range(2000):
        threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
    return {"z": np.zeros_like(z)}
