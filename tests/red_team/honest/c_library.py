"""Calls the C library's exp and tanh by ctypes, entry by entry."""

import ctypes
import ctypes.util

import numpy as np

EXPECTED = {"PASSED"}

library = ctypes.CDLL("libm.so.6")
library.exp.restype, library.exp.argtypes = ctypes.c_double, [ctypes.c_double]
exp = np.vectorize(library.exp, otypes=[np.float64])


def forward(z):
    s = 1 / (1 + exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
