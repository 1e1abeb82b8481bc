"""Computes the rows in threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

EXPECTED = {"PASSED"}


def slope(row):
    s = 1 / (1 + np.exp(-row))
    return s + row * s * (1 - s)


def forward(z):
    return z / (1 + np.exp(-z)), z


def backward(z, delta):
    with ThreadPoolExecutor(3) as pool:
        return {"z": delta * np.array(list(pool.map(slope, z)), z.dtype).reshape(z.shape)}
