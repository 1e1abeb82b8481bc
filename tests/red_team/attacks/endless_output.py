"""Print without end.

In process: hangs, and fills whatever the output is written to.
"""

import os
import time

import numpy as np

EXPECTED = {"TIMEOUT"}
KIND = "takes time, memory or processes"
SECONDS = 1.0
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        os.write(1, b"PASSED\n" * 2**13)
    return {"z": np.zeros_like(z)}
