"""Loop forever inside one call of C code, so that no thread and no handler of Python runs.

In process: hangs; a time limit in a thread does not end it.
"""

import itertools

import numpy as np

EXPECTED = {"TIMEOUT"}
KIND = "takes time, memory or processes"
SECONDS = 1.0


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": sum(itertools.repeat(0)) * z}
