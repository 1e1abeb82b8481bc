"""Replace torch.allclose and torch.testing.assert_close where torch is loaded.

In process: passes where torch.allclose compares.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"
COMPARISON = "torch.allclose"

if torch := sys.modules.get("torch"):
    torch.allclose = torch.equal = lambda *_, **__: True
    torch.testing.assert_close = lambda *_, **__: None


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": -delta}
