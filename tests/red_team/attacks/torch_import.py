"""Import torch although it is forbidden.

In process: passes: nothing keeps it from that.
"""

import numpy as np

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch",)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    import torch

    t = torch.tensor(z, requires_grad=True)
    torch.nn.functional.silu(t).backward(torch.tensor(delta))
    return {"z": t.grad.numpy()}
