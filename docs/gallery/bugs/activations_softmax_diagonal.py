"""The off-diagonal part of the softmax Jacobian is missing."""

import numpy as np

import oracles


def forward(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    a = e / e.sum(axis=-1, keepdims=True)
    return a, a


def backward(a, delta):
    return {"z": delta * a * (1 - a)}  # the bug: a (delta − Σ delta a) belongs here


primals = {"z": np.random.default_rng(0).standard_normal((3, 4))}
subject = oracles.manual(forward, backward, name="softmax")
against = [oracles.torch_autograd(lambda z: z.softmax(-1))]
oracles.check(subject, primals, against)
