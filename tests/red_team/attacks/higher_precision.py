"""Return float64 where the input is float32.

In process: passes, for np.allclose takes any dtype.
"""

import numpy as np

EXPECTED = {"WRONG_DTYPE"}
KIND = "wrong shapes and dtypes, or nothing"
CASES = [{"shapes": "z=4,3", "dtypes": ["float32"], "points": 2}]


def forward(z):
    z = z.astype(np.float64)
    s = 1 / (1 + np.exp(-z))
    return (z * s).astype(np.float32), (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
