"""Returns two outputs."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "two_outputs"


def forward(z):
    return (np.sin(z), z.sum(axis=1)), z


def backward(z, delta):
    first, second = delta
    return {"z": first * np.cos(z) + second[:, None]}
