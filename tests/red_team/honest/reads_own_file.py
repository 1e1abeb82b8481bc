"""Reads constants from its own source."""

import re
from pathlib import Path

import numpy as np

EXPECTED = {"PASSED"}
SCALE = 1.0  # scale: 1


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    scale = float(re.search(r"# scale: (\d)", Path(__file__).read_text())[1])
    return {"z": scale * delta * (s + z * s * (1 - s))}
