"""Return an output of NaN and a gradient of NaN, as if the function were undefined everywhere.

In process: passes where a difference above the tolerance refuses.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "returns no numbers"
FUNCTION = "softmax"
COMPARISON = "relative"


def forward(z):
    return np.full_like(z, np.nan), z


def backward(z, delta):
    return {"z": np.full_like(z, np.nan)}
