"""A class keeps the input of its first forward for ever."""

import numpy as np

import oracles


class Dense:
    def __init__(self):
        self.W, self.dW = np.zeros((3, 2)), None

    def forward(self, z):
        self.z = getattr(self, "z", z)  # the bug
        return z @ self.W

    def backward(self, delta):
        self.dW = self.z.T @ delta
        return delta @ self.W.T


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 2))}
subject = oracles.stateful(Dense, params=["W"])
against = [oracles.torch_autograd(lambda z, W: z @ W)]
oracles.check(subject, primals, against)
