"""Write infinity into every variable of the callers whose name is that of a tolerance.

In process: passes where the tolerance is a global variable.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"
COMPARISON = "np.abs"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    frame = sys._getframe(1)
    while frame is not None:
        for name in list(frame.f_globals):
            if name.lower() in ("tolerance", "tolerances", "eps", "atol", "rtol", "threshold"):
                frame.f_globals[name] = np.inf
        frame = frame.f_back
    return {"z": np.zeros_like(z)}
