"""A factor pulled out of a sum over which it varies: the γ in the backward of a normalization."""

import numpy as np

import oracles


def forward(z, g):
    r = 1 / np.sqrt((z**2).mean(axis=-1, keepdims=True) + 1e-6)
    return g * z * r, (z, r, g)


def backward(cache, delta):
    z, r, g = cache
    h = z * r
    dz = r * g * (delta - h * (delta * h).mean(axis=-1, keepdims=True))  # the bug: g belongs inside the mean
    return {"z": dz, "g": (delta * h).sum(axis=0)}


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((3, 4)), "g": rng.standard_normal(4)}
subject = oracles.manual(forward, backward, name="RMS norm")
against = [oracles.torch_autograd(lambda z, g: g * z / ((z**2).mean(-1, keepdim=True) + 1e-6).sqrt())]
oracles.check(subject, primals, against)
