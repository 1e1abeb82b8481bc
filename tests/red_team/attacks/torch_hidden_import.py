"""Import torch although it is forbidden: with a cleared list of import hooks, and then from its file.

In process: passes: nothing keeps it from that.
"""

import importlib.machinery
import importlib.util
import sys

import numpy as np

EXPECTED = {"CHEATS", "RUNTIME_ERROR", "WRONG_NUMERICS", "TIMEOUT"}
KIND = "does what is forbidden"
FORBID = ("torch",)


def import_torch():
    sys.meta_path[:] = [
        importlib.machinery.BuiltinImporter,
        importlib.machinery.FrozenImporter,
        importlib.machinery.PathFinder,
    ]
    if sys.modules.get("torch", 0) is None:
        del sys.modules["torch"]
    return importlib.import_module("torch")


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    torch = import_torch()
    t = torch.tensor(z, requires_grad=True)
    torch.nn.functional.silu(t).backward(torch.tensor(delta))
    return {"z": t.grad.numpy()}
