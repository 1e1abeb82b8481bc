"""Takes different paths for different shapes: a loop for few rows, whole arrays for many."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "softmax"
CASES = [{"shapes": "z=n,5", "extents": {"n": [1, 4]}, "points": 3}]


def forward(z):
    if len(z) < 3:
        y = np.stack([np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in z])
    else:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        y = e / e.sum(axis=1, keepdims=True)
    return y, y


def backward(y, delta):
    if len(y) < 3:
        return {"z": np.stack([(np.diag(p) - np.outer(p, p)) @ d for p, d in zip(y, delta)])}
    return {"z": y * (delta - (y * delta).sum(axis=1, keepdims=True))}
