"""The sum runs over the wrong axis: the softmax of each column, not of each row."""

import numpy as np

import oracles


def forward(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    a = e / e.sum(axis=-1, keepdims=True)
    return a, a


def backward(a, delta):
    return {"z": a * (delta - (delta * a).sum(axis=0, keepdims=True))}  # the bug: axis=-1


primals = {"z": np.random.default_rng(0).standard_normal((4, 4))}
subject = oracles.manual(forward, backward, name="softmax")
against = [oracles.torch_autograd(lambda z: z.softmax(-1))]
oracles.check(subject, primals, against)
