"""Return NaN everywhere: no comparison with NaN is true.

In process: passes where a difference above the tolerance refuses.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "returns no numbers"
COMPARISON = "relative"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.full_like(z, np.nan)}
