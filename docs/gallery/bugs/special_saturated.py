"""e^z overflows: NaN for large inputs, and right for all that a test draws at random."""

import numpy as np
import torch

import oracles


def forward(z):
    with np.errstate(all="ignore"):
        e = np.exp(z)
        return e / (1 + e), e / (1 + e)


def backward(a, delta):
    return {"z": delta * a * (1 - a)}


primals = {"z": np.array([[0.5, -1.0, 800.0]])}
subject = oracles.manual(forward, backward, name="sigmoid")
against = [oracles.torch_autograd(torch.sigmoid)]
oracles.check(subject, primals, against)
