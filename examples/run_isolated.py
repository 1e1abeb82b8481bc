"""Several subjects, each in a process of its own: one that crashes is a finding, and the others are still judged.

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
    """Read where there is nothing, as a kernel with a wrong length does."""
    ctypes.string_at(8)


def endless(z, delta):
    """Wait for a block that never comes."""
    while True:
        pass


def leaves(z, delta):
    """End the program, as some libraries do on an error."""
    os._exit(3)


primals = {"z": np.random.default_rng(0).standard_normal(4)}
against = [oracles.torch_autograd(lambda z: z * z)]
for backward in (out_of_bounds, right, endless, leaves, right):
    subject = oracles.manual(forward, backward, name=backward.__name__)
    try:
        print(oracles.check(subject, primals, against, isolate=True, seconds=2))
    except oracles.Disagreement as disagreement:
        print(disagreement)
