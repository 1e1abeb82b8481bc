"""Compiles its loops by numba where that is installed."""

import numpy as np

EXPECTED = {"PASSED"}

try:
    from numba import njit
except ImportError:

    def njit(function):
        return function


@njit
def slope(z, delta, gradient):
    for i in range(z.size):
        s = 1 / (1 + np.exp(-z[i]))
        gradient[i] = delta[i] * (s + z[i] * s * (1 - s))


def forward(z):
    return z / (1 + np.exp(-z)), z


def backward(z, delta):
    gradient = np.empty(z.size, z.dtype)
    slope(z.reshape(-1), np.ascontiguousarray(delta).reshape(-1), gradient)
    return {"z": gradient.reshape(z.shape)}
