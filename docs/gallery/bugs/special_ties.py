"""Every tied maximum gets the whole delta. Together they get too much."""

import numpy as np

import oracles


def forward(z):
    top = z.max(axis=-1, keepdims=True)
    return top[..., 0], z == top


def backward(is_top, delta):
    return {"z": delta[..., None] * is_top}  # the bug: divide by the number of ties, or choose one


primals = {"z": np.array([[1.0, 3.0, 3.0, 0.5], [2.0, -1.0, 0.0, 1.0]])}
subject = oracles.manual(forward, backward, name="max")
against = [oracles.torch_autograd(lambda z: z.amax(-1))]
oracles.check(subject, primals, against)
