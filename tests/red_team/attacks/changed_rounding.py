"""Change the rounding mode of the processor and flush subnormal numbers to zero, by the C library.

In process: refused; what is computed later in the process is rounded in another way.
"""

import ctypes

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"

try:
    ctypes.CDLL("libm.so.6").fesetround(0x800)
except (OSError, AttributeError):
    pass


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
