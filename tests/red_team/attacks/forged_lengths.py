"""Write enormous lengths to every descriptor, so that the judge waits for, or takes memory for, what never follows.

In process: refused.
"""

import os
import struct

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS", "TIMEOUT", "WRONG_NUMERICS"}
KIND = "ends the process, or forges a report"
SECONDS = 1.0


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, struct.pack("I", 2**32 - 1) + struct.pack("!iQ", -1, 2**62))
        except OSError:
            pass
    return {"z": np.zeros_like(z)}
