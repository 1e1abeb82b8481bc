"""Sources of subjects for these tests; none is imported in the process of the tests."""

SILU = """
import numpy as np

def forward(z):
    a = 1 / (1 + np.exp(-z))
    return z * a, (z, a)

def backward(cache, delta):
    z, a = cache
    return {"z": delta * (a + z * a * (1 - a))}
"""
REFERENCE = """
import torch

def silu(z):
    return torch.nn.functional.silu(z)
"""


def edited(old, new, source=SILU):
    assert old in source
    return source.replace(old, new)
