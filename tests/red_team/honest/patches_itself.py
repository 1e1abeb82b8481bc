"""Replaces its own backward in the first call, as compilers that specialize do."""

import numpy as np

EXPECTED = {"PASSED"}
SUBJECT = "oracles.manual(forward, lambda cache, delta: backward(cache, delta))"
COMPILED = {}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def compiled(shape):
    names = {}
    exec("def run(z, s, delta):\n    return delta * (s + z * s * (1 - s))", names)
    return names["run"]


def backward(cache, delta):
    if delta.shape not in COMPILED:
        COMPILED[delta.shape] = compiled(delta.shape)
    return {"z": COMPILED[delta.shape](*cache, delta)}
