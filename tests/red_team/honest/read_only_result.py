"""Returns read-only arrays."""

import numpy as np

EXPECTED = {"PASSED"}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    y = z * s
    y.flags.writeable = False
    return y, (z, s)


def backward(cache, delta):
    z, s = cache
    gradient = delta * (s + z * s * (1 - s))
    gradient.flags.writeable = False
    return {"z": gradient}
