"""Check subjects in processes of their own: a crash is a finding, and the others are still checked.

python examples/run_isolated.py
"""

import ctypes
import os

import numpy as np

import oracles


def forward(z):
    """y = z²."""
    return z * z, z


def right(z, delta):
    """dz = 2z delta."""
    return {"z": 2 * z * delta}


def out_of_bounds(z, delta):
    """Read outside of all memory, as a kernel with a wrong length does."""
    ctypes.string_at(8)


def endless(z, delta):
    """Never return."""
    while True:
        pass


def exits(z, delta):
    """Exit, as some libraries do on an error."""
    os._exit(3)


primals = {"z": np.random.default_rng(0).standard_normal(4)}
against = [oracles.torch_autograd(lambda z: z * z)]
for backward in (out_of_bounds, right, endless, exits, right):
    subject = oracles.manual(forward, backward, name=backward.__name__)
    try:
        print(oracles.check(subject, primals, against, isolate=True, seconds=2))
    except oracles.Disagreement as disagreement:
        print(disagreement)
