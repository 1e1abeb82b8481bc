"""Walk the frames of the callers to a function with the name of the reference, and let torch differentiate it.

In process: passes, for the verifier holds the reference in a local variable.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def find(name):
    frame = sys._getframe(1)
    while frame is not None:
        value = frame.f_locals.get(name, frame.f_globals.get(name))
        if callable(value):
            return value
        frame = frame.f_back


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    reference = find("reference")
    if reference is None:
        return {"z": np.zeros_like(z)}
    import torch

    t = torch.tensor(z, requires_grad=True)
    reference(t).backward(torch.tensor(delta))
    return {"z": t.grad.numpy()}
