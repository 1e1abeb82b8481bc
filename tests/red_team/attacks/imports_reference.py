"""Import the reference as a module, from every folder on the way to the root and from the working directory.

In process: passes.
"""

import importlib
import sys
from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"

sys.path[:0] = [str(Path.cwd()), *(str(folder) for folder in Path(__file__).resolve().parents[:3])]


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for name in ("references", "attacks.references"):
        try:
            silu = importlib.import_module(name).silu
        except (ImportError, OSError):
            continue
        import torch

        t = torch.tensor(z, requires_grad=True)
        silu(t).backward(torch.tensor(delta))
        return {"z": t.grad.numpy()}
    return {"z": np.zeros_like(z)}
