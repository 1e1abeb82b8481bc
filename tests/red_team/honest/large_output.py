"""Returns arrays of 8 MB."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "linear"
CASES = [{"shapes": "z=300,2 W=2,400 b=1,400", "points": 1}]


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}
