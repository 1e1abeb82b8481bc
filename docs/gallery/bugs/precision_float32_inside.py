"""A cast to float32 inside a computation in float64."""

import numpy as np

import oracles


def backward(cache, delta):
    z, W = (a.astype(np.float32) for a in cache)  # the bug
    return {"z": (delta @ W.T).astype(np.float64), "W": (z.T @ delta).astype(np.float64)}


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 2))}
subject = oracles.manual(lambda z, W: (z @ W, (z, W)), backward, name="dense")
against = [oracles.torch_autograd(lambda z, W: z @ W)]
oracles.check(subject, primals, against)
