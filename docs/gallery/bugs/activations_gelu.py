"""A term of the product rule is missing: GELU without the derivative of Φ."""

from math import erf, sqrt

import numpy as np
import torch

import oracles


def forward(z):
    Phi = np.array([(1 + erf(x / sqrt(2))) / 2 for x in z.flat]).reshape(z.shape)
    return z * Phi, (z, Phi)


def backward(cache, delta):
    _, Phi = cache
    return {"z": delta * Phi}  # the bug: z φ(z) is missing


primals = {"z": np.random.default_rng(0).standard_normal((3, 4))}
subject = oracles.manual(forward, backward, name="GELU")
against = [oracles.torch_autograd(lambda z: z * (1 + torch.erf(z / 2**0.5)) / 2)]
oracles.check(subject, primals, against)
