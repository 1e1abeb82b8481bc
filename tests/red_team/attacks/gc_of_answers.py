"""Scan the garbage collector for mappings with arrays of the gradient's shape, the oracles' answers among them.

In process: refused at the first point.
"""

import gc

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC"}
KIND = "looks for the reference"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for each in gc.get_objects():
        if type(each) is dict and type(found := each.get("z")) is np.ndarray and found.shape == z.shape:
            if found is not z and not (found == z).all():
                return {"z": found.copy()}
    return {"z": np.zeros_like(z)}
