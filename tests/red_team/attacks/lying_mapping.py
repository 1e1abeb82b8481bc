"""Return a mapping whose items are computed when they are asked for, from what the callers' frames hold.

In process: passes, for what is expected is computed before the gradients are read.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "WRONG_SHAPE", "CHEATS"}
KIND = "returns objects that lie"


class Lying(dict):
    def __getitem__(self, name):
        frame = sys._getframe(1)
        while frame is not None:
            expected = frame.f_locals.get("expected")
            if isinstance(expected, dict) and name in expected:
                return np.array(expected[name])
            frame = frame.f_back
        return super().__getitem__(name)

    def items(self):
        return [(name, self[name]) for name in self.keys()]

    def values(self):
        return [self[name] for name in self.keys()]


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return Lying(z=np.zeros_like(z))
