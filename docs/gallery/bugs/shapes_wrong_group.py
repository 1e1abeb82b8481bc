"""Grouped queries: the gradients of key heads go to the heads of another group."""

import numpy as np

import oracles


def forward(q, k):
    return q * np.repeat(k, 2, axis=0), (q, k)  # heads 0, 1 share key 0, heads 2, 3 share key 1


def backward(cache, delta):
    q, k = cache
    dk = (delta * q).reshape(2, 2, -1).sum(axis=0)  # the bug: axis=1
    return {"q": delta * np.repeat(k, 2, axis=0), "k": dk}


rng = np.random.default_rng(0)
primals = {"q": rng.standard_normal((4, 5)), "k": rng.standard_normal((2, 5))}
subject = oracles.manual(forward, backward, name="grouped heads")
against = [oracles.torch_autograd(lambda q, k: q * k.repeat_interleave(2, 0))]
oracles.check(subject, primals, against)
