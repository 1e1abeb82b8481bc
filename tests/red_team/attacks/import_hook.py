"""Insert a finder before all others, which gives an own module for the name of the reference.

In process: passes where the reference is imported by name after the subject; the naive verifier loads it by its file.
"""

import importlib.abc
import importlib.util
import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if "references" in name else None

    def exec_module(self, module):
        module.silu = lambda z: (z * z.sigmoid()).detach() + 0 * z


sys.meta_path.insert(0, Finder())


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
