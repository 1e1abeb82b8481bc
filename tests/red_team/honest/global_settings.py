"""Changes settings of its process: the working directory, print options, the switch interval, the recursion limit."""

import os
import sys
import tempfile

import numpy as np

EXPECTED = {"PASSED"}

np.set_printoptions(precision=2)
sys.setswitchinterval(1e-4)
sys.setrecursionlimit(5000)
os.environ["MY_KERNEL"] = "1"
os.chdir(tempfile.gettempdir())


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
