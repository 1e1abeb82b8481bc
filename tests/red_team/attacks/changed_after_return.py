"""Keep the returned array, and write into it from a thread after it was returned.

In process: refused; passes where a verifier compares later.
"""

import threading
import time

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC"}
KIND = "right where it is looked at"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    gradient = np.zeros_like(z)

    def write():
        time.sleep(0.02)
        gradient[...] = delta * (s + z * s * (1 - s))

    threading.Thread(target=write, daemon=True).start()
    return {"z": gradient}
