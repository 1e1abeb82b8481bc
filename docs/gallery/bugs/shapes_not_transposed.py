"""W where its transpose belongs. W is square, so no shape shows it."""

import numpy as np

import oracles


def forward(z, W):
    return z @ W, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W, "W": z.T @ delta}  # the bug: delta @ W.T


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 3))}
subject = oracles.manual(forward, backward, name="dense")
against = [oracles.torch_autograd(lambda z, W: z @ W)]
oracles.check(subject, primals, against)
