"""Sorts, and puts the cotangents back by the permutation."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "sorted_rows"


def forward(z):
    order = np.argsort(z, axis=1, kind="stable")
    return np.take_along_axis(z, order, axis=1), order


def backward(order, delta):
    gradient = np.empty_like(delta)
    np.put_along_axis(gradient, order, delta, axis=1)
    return {"z": gradient}
