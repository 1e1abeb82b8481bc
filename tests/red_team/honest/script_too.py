"""Can be run as a script as well."""

import sys

import numpy as np

EXPECTED = {"PASSED"}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}


if __name__ == "__main__":
    print(forward(np.ones((1, 1))))
    sys.exit(1)
