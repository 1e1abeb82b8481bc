"""Sums by halves, recursively."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "cumulative_sum"


def suffix_sums(a):
    if a.shape[1] <= 1:
        return a.copy()
    half = a.shape[1] // 2
    left, right = suffix_sums(a[:, :half]), suffix_sums(a[:, half:])
    return np.concatenate([left + right[:, :1], right], axis=1)


def forward(z):
    return np.cumsum(z, axis=1), None


def backward(cache, delta):
    return {"z": suffix_sums(delta)}
