"""Raise an error of the judge itself in backward, so that nothing is concluded about the subject.

In process: refused as an error.
"""

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    from oracles.rule import InternalError

    raise InternalError("nothing is known about the subject")
