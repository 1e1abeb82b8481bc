"""Loop forever.

In process: hangs.
"""

import numpy as np

EXPECTED = {"TIMEOUT"}
KIND = "takes time, memory or processes"
SECONDS = 1.0


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    while True:
        pass
