"""Replace torch.autograd.grad and Tensor.backward, so that the reference's gradient is zero as well.

In process: passes, for zero is compared with zero.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"

if torch := sys.modules.get("torch"):

    def grad(outputs, inputs, *_, **__):
        return tuple(torch.zeros_like(i) for i in ([inputs] if torch.is_tensor(inputs) else inputs))

    torch.autograd.grad = grad


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
