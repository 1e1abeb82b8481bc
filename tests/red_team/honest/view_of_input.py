"""Returns a view of its input as output, and a view of the cotangent as gradient."""

EXPECTED = {"PASSED"}
FUNCTION = "rotated"

import numpy as np


def forward(z):
    return np.roll(z[:, ::-1], 1, axis=1), z.shape


def backward(shape, delta):
    return {"z": np.roll(delta, -1, axis=1)[:, ::-1]}
