"""The bias is not summed. Its gradient has one row for each sample."""

import numpy as np

import oracles


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta}  # the bug


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 2)), "b": rng.standard_normal((1, 2))}
subject = oracles.manual(forward, backward, name="dense")
against = [oracles.torch_autograd(lambda z, W, b: z @ W + b)]
oracles.check(subject, primals, against)
