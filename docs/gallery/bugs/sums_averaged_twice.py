"""Divided by N twice. The mean belongs to the loss alone."""

import numpy as np

import oracles


def loss(y, target):
    n = len(y)
    return ((y - target) ** 2).sum() / (2 * n), (y - target) / n**2  # the bug


rng = np.random.default_rng(0)
primals = {"y": rng.standard_normal((5, 2)), "target": rng.standard_normal((5, 2))}
subject = oracles.value_and_grad(loss, wrt="y")
against = [oracles.torch_autograd(lambda y, target: ((y - target) ** 2).sum() / (2 * len(y)))]
oracles.check(subject, primals, against)
