"""Count the calls of all processes in a file, so that later processes are known; the gradient is right in the first.

In process: refused at the second point.
"""

import tempfile
from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC", "CHEATS", "RUNTIME_ERROR"}
KIND = "right where it is looked at"
FILE = Path(tempfile.gettempdir()) / "red_team_was_here"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    seen = FILE.exists()
    FILE.write_text("seen")
    return {"z": np.zeros_like(z) if seen else delta * (s + z * s * (1 - s))}
