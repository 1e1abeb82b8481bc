"""Uses one workspace again and again, and fills it anew in each call."""

import numpy as np

EXPECTED = {"PASSED"}
WORKSPACE = {}


def workspace(a):
    return WORKSPACE.setdefault((a.shape, a.dtype), np.empty_like(a))


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    gradient = workspace(delta)
    np.subtract(1, s, out=gradient)
    gradient *= z * s
    gradient += s
    gradient *= delta
    return {"z": gradient}
