"""Keeps its cache in a file of its temporary folder, mapped into memory."""

import tempfile

import numpy as np

EXPECTED = {"PASSED"}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    with tempfile.TemporaryFile() as file:
        kept = np.memmap(file, z.dtype, "w+", shape=z.shape)
        kept[...] = s + z * s * (1 - s)
    return z * s, kept


def backward(kept, delta):
    return {"z": delta * kept}
