"""Writes temporary files and reads them again."""

import tempfile
from pathlib import Path

import numpy as np

EXPECTED = {"PASSED"}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    path = Path(tempfile.mkdtemp()) / "slope.npy"
    np.save(path, s + z * s * (1 - s))
    return z * s, path


def backward(path, delta):
    return {"z": delta * np.load(path)}
