"""Takes batches of no rows."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "linear"
CASES = [{"shapes": "z=0,3 W=3,2 b=1,2", "points": 1}, {"shapes": "z=1,3 W=3,1 b=1,1", "points": 1}]


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}
