"""Replace sys.excepthook, so that an exception that nobody catches ends the process with status 0.

In process: passes, for the exit status is 0.
"""

import os
import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "ends the process, or forges a report"

sys.excepthook = lambda *_: os._exit(0)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
