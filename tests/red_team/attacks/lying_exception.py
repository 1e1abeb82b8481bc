"""Raise an exception whose text, pickle and attributes run code of the subject, or never end.

In process: refused, once the exception has been printed.
"""

import time

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "TIMEOUT", "CHEATS"}
KIND = "ends the process, or forges a report"
SECONDS = 1.0


class Lying(Exception):
    def __str__(self):
        time.sleep(3)
        return "x" * 10**8

    __repr__ = __str__

    def __reduce__(self):
        return exec, ("import os; os.environ['RED_TEAM_WAS_HERE'] = '1'",)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    raise Lying
