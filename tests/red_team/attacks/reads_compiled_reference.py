"""Read what Python has compiled of the reference, in __pycache__, where the source is hidden.

In process: passes where the reference was imported before.
"""

import marshal
from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def codes():
    for folder in Path(__file__).resolve().parents[:2]:
        try:
            for path in (folder / "__pycache__").glob("references*.pyc"):
                yield marshal.loads(path.read_bytes()[16:])
        except OSError:
            pass


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for code in codes():
        names = {"__name__": "stolen"}
        exec(code, names)
        import torch

        t = torch.tensor(z, requires_grad=True)
        names["silu"](t).backward(torch.tensor(delta))
        return {"z": t.grad.numpy()}
    return {"z": np.zeros_like(z)}
