"""Raise and catch an exception, and walk from its traceback through the callers' globals to a torch function.

In process: passes, for the verifier's module holds the reference.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    try:
        raise LookupError
    except LookupError as error:
        frame = error.__traceback__.tb_frame
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            names = getattr(getattr(value, "__globals__", None), "keys", list)()
            if callable(value) and "torch" in names and getattr(value, "__name__", "") == "silu":
                import torch

                t = torch.tensor(z, requires_grad=True)
                value(t).backward(torch.tensor(delta))
                return {"z": t.grad.numpy()}
        frame = frame.f_back
    return {"z": np.zeros_like(z)}
