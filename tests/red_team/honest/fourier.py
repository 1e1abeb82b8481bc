"""Convolves by Fourier transforms."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "circular_convolution"
CASES = [{"shapes": "z=8 w=8", "points": 2, "declared": {"accuracy": "normwise"}}]


def convolved(a, b):
    return np.fft.irfft(np.fft.rfft(a) * np.fft.rfft(b), n=len(a)).astype(a.dtype)


def correlated(a, b):
    return np.fft.irfft(np.fft.rfft(a) * np.conj(np.fft.rfft(b)), n=len(a)).astype(a.dtype)


def forward(z, w):
    return convolved(z, w), (z, w)


def backward(cache, delta):
    z, w = cache
    return {"z": correlated(delta, w), "w": correlated(delta, z)}
