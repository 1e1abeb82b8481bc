"""A forgotten ½. The loss is the squared error, and its gradient that of half of it."""

import numpy as np

import oracles


def squared_error(y, target):
    error = y - target
    return (error**2).sum(), error  # the bug: the derivative is 2 error


rng = np.random.default_rng(0)
primals = {"y": rng.standard_normal((4, 3)), "target": rng.standard_normal((4, 3))}
subject = oracles.value_and_grad(squared_error, wrt="y")
against = [oracles.torch_autograd(lambda y, target: ((y - target) ** 2).sum())]
oracles.check(subject, primals, against)
