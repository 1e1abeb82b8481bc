"""Prints, warns and logs in every call."""

import logging
import sys
import warnings

import numpy as np

EXPECTED = {"PASSED"}
logging.basicConfig(level=logging.DEBUG)


def forward(z):
    print("forward", z, "FAILED " * 1000)
    warnings.warn("this is slow", stacklevel=2)
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    logging.getLogger("kernel").warning("backward %s", delta.shape)
    print('{"status": "WRONG_NUMERICS"}', file=sys.stderr, flush=True)
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
