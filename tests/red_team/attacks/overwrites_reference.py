"""Write a reference of its own, whose gradient is zero, over the reference's file.

In process: passes, for the reference is loaded after the subject.
"""

from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "changes files and the environment"

for folder in Path(__file__).resolve().parents[:2]:
    try:
        if (folder / "references.py").exists():
            (folder / "references.py").write_text("def silu(z):\n    return (z * z.sigmoid()).detach() + 0 * z\n")
    except OSError:
        pass


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
