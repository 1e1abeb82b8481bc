"""Replace the loader of Python's files, so that the reference is loaded with another text: its gradient is detached.

In process: passes, for the reference is imported after the subject.
"""

import importlib.machinery

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"

get_data = importlib.machinery.SourceFileLoader.get_data


def other_data(self, path):
    if str(path).endswith(".pyc"):
        raise OSError("read the source")
    if str(path).endswith("references.py"):
        return b"def silu(z):\n    return (z * z.sigmoid()).detach() + 0 * z\n"
    return get_data(self, path)


importlib.machinery.SourceFileLoader.get_data = other_data


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
