"""The delta is ignored: right only for the sum of the outputs."""

import numpy as np

import oracles


def backward(z, delta):
    return {"z": 2 * z}  # the bug: 2 z delta


primals = {"z": np.random.default_rng(0).standard_normal((3, 4))}
subject = oracles.manual(lambda z: (z**2, z), backward, name="square")
against = [oracles.torch_autograd(lambda z: z**2)]
oracles.check(subject, primals, against)
