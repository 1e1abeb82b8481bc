"""A term of layer normalization is missing: what comes through the variance."""

import numpy as np
import torch

import oracles


def forward(z, g):
    s = 1 / np.sqrt(z.var(axis=-1, keepdims=True) + 1e-5)
    h = (z - z.mean(axis=-1, keepdims=True)) * s
    return g * h, (h, s, g)


def backward(cache, delta):
    h, s, g = cache
    e = delta * g
    dz = s * (e - e.mean(axis=-1, keepdims=True))  # the bug: − h mean(e h) is missing
    return {"z": dz, "g": (delta * h).sum(axis=0)}


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((3, 5)), "g": rng.standard_normal(5)}
subject = oracles.manual(forward, backward, name="layer norm")
against = [oracles.torch_autograd(lambda z, g: torch.layer_norm(z, (5,), g))]
oracles.check(subject, primals, against)
