"""The gradient is clipped on its way. Large ones are wrong."""

import numpy as np

import oracles


def backward(z, delta):
    return {"z": 2 * z * np.clip(delta, -1, 1)}  # the bug


primals = {"z": np.random.default_rng(0).standard_normal((3, 4))}
subject = oracles.manual(lambda z: (z**2, z), backward, name="square")
against = [oracles.torch_autograd(lambda z: z**2)]
oracles.check(subject, primals, against)
