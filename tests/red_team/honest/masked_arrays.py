"""Computes with masked arrays, and fills them before it returns them."""

import numpy as np

EXPECTED = {"PASSED"}


def forward(z):
    m = np.ma.masked_array(z, mask=False)
    s = 1 / (1 + np.ma.exp(-m))
    return (m * s).filled(0), (m, s)


def backward(cache, delta):
    m, s = cache
    return {"z": (delta * (s + m * s * (1 - s))).filled(0)}
