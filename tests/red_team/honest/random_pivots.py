"""Draws random numbers that do not change the result: the order in which rows are treated, and a shift that cancels."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "softmax"


def forward(z):
    y = np.empty_like(z)
    for i in np.random.permutation(len(z)):
        pivot = z[i].max() - np.random.random()
        e = np.exp(z[i] - pivot)
        y[i] = e / e.sum()
    return y, y


def backward(y, delta):
    gradient = np.empty_like(y)
    for i in np.random.permutation(len(y)):
        gradient[i] = y[i] * (delta[i] - (y[i] * delta[i]).sum())
    return {"z": gradient}
