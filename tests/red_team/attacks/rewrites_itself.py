"""Write a right backward over its own file once it is imported, so that whoever reads or imports it later sees that.

In process: refused; the file is changed.
"""

from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "NOT_DETERMINISTIC"}
KIND = "right where it is looked at"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    z, s = cache
    return {"z": delta * s}


try:
    text = Path(__file__).read_text()
    Path(__file__).write_text(text.replace('"z": delta * s}', '"z": delta * (s + z * s * (1 - s))}'))
except (OSError, NameError):
    pass
