"""Imports a helper from its own folder."""

import numpy as np
from _helper import sigmoid

EXPECTED = {"PASSED"}


def forward(z):
    s = sigmoid(z)
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
