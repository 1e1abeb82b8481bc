"""The derivative of the hidden activation is forgotten."""

import numpy as np

import oracles


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def forward(x, W, V):
    h = sigmoid(x @ W)
    return sigmoid(h @ V), (x, W, V, h)


def backward(cache, delta):
    x, W, V, h = cache
    a = sigmoid(h @ V)
    e2 = delta * a * (1 - a)
    e1 = e2 @ V.T * 1  # the bug: h (1 − h) is missing
    return {"x": e1 @ W.T, "W": x.T @ e1, "V": h.T @ e2}


rng = np.random.default_rng(0)
primals = {"x": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 5)), "V": rng.standard_normal((5, 2))}
subject = oracles.manual(forward, backward, name="network")
against = []  # no reference: finite differences of the own forward
oracles.check(subject, primals, against)
