"""Raise the limit of recursion and recurse without end, until the stack overflows.

In process: a segmentation fault or an exception.
"""

import sys

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


class Deep:
    def __repr__(self):
        return repr(self)


def backward(z, delta):
    sys.setrecursionlimit(10**9)
    return {"z": repr(Deep())}
