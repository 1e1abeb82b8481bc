"""Read the reference's file, whose place is known, and let torch differentiate it.

In process: passes.
"""

import runpy
from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"
FUNCTION = "layer_norm"


def forward(z, g, b):
    centred = z - z.mean(axis=1, keepdims=True)
    n = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return n * g + b, (z, g, b)


def backward(cache, delta):
    for folder in Path(__file__).resolve().parents[:2]:
        try:
            layer_norm = runpy.run_path(str(folder / "references.py"))["layer_norm"]
        except OSError:
            continue
        import torch

        tensors = [torch.tensor(a, requires_grad=True) for a in cache]
        layer_norm(*tensors).backward(torch.tensor(delta))
        return dict(zip(("z", "g", "b"), (t.grad.numpy() for t in tensors)))
    return dict(zip(("z", "g", "b"), map(np.zeros_like, cache)))
