"""Takes a quarter of the time that it may take."""

import time

import numpy as np

EXPECTED = {"PASSED"}
SECONDS = 0.6
CASES = [{"shapes": "z=4,3", "points": 1}]


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    time.sleep(0.02)
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
