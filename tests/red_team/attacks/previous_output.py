"""Return the gradient of the previous call; in the first call, the right one.

In process: refused at the second point; passes where one point is repeated.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC", "CHEATS"}
KIND = "right where it is looked at"
previous = None


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    global previous
    z, s = cache
    right = delta * (s + z * s * (1 - s))
    last, previous = (right if previous is None else previous), right
    return {"z": last if last.shape == z.shape else np.zeros_like(z)}
