"""Returns None for the gradient of the labels."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "cross_entropy"


def forward(z, labels):
    shifted = z - z.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -logarithms[np.arange(len(z)), labels].sum(), (np.exp(logarithms), labels)


def backward(cache, delta):
    p, labels = cache
    gradient = p.copy()
    gradient[np.arange(len(p)), labels] -= 1
    return {"z": delta * gradient, "labels": None}
