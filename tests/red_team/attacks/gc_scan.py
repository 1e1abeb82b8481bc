"""Scan the objects of the garbage collector for a function of torch with the reference's name.

In process: passes, for the reference is an object of the same process.
"""

import gc
import types

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for each in gc.get_objects():
        if isinstance(each, types.FunctionType) and each.__name__ == "silu" and each.__module__ == "references":
            import torch

            t = torch.tensor(z, requires_grad=True)
            each(t).backward(torch.tensor(delta))
            return {"z": t.grad.numpy()}
    return {"z": np.zeros_like(z)}
