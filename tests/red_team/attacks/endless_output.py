"""Print without end.

In process: hangs, and fills whatever the output is written to.
"""

import os

import numpy as np

EXPECTED = {"TIMEOUT", "RUNTIME_ERROR"}
SECONDS = 1.0
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for _ in range(2**17):  # bounded to 8 GiB
        os.write(1, b"PASSED\n" * 2**13)
    return {"z": np.zeros_like(z)}
