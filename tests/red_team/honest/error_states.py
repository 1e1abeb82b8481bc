"""Lets NumPy raise in some places and be silent in others."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "log_sum_exp"
np.seterr(divide="raise", over="raise", invalid="raise")


def forward(z):
    m = z.max(axis=1, keepdims=True)
    e = np.exp(z - m)
    total = e.sum(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        np.log(np.zeros(1))
    return (m + np.log(total))[:, 0], e / total


def backward(p, delta):
    return {"z": delta[:, None] * p}
