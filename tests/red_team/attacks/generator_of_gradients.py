"""Return a generator that looks at the arrays of its consumer before it yields.

In process: refused: the verifier needs a mapping.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "WRONG_SHAPE", "RUNTIME_ERROR", "WRONG_DTYPE"}
KIND = "returns objects that lie"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    def gradients():
        frame = sys._getframe(1)
        expected = frame.f_locals.get("expected", {}) if frame else {}
        yield expected["z"] if "z" in expected else np.zeros_like(z)

    return gradients()
