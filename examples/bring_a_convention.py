"""Declare conventions that differ from the reference's; a wrong declaration is refused.

python examples/bring_a_convention.py
"""

import numpy as np

import oracles


def forward(z, W):
    """y = zW, with the samples in columns and W transposed."""
    return W @ z, (z, W)


def backward(cache, delta):
    """Return dW averaged over the batch, as many courses do."""
    z, W = cache
    return {"z": W.T @ delta, "W": delta @ z.T / z.shape[1]}


subject = oracles.manual(forward, backward, name="columns")
layout = {"z": "nk->kn", "W": "km->mk", "output": "nm->mn"}
rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 2))}  # in the layout of the reference
against = [oracles.torch_autograd(lambda z, W: z @ W)]

mean = {"W": lambda z, **_: 1 / len(z)}
print(oracles.check(oracles.declared(subject, layout=layout, scale=mean), primals, against))
half = {"W": 0.5}
try:
    oracles.check(oracles.declared(subject, layout=layout, scale=half), primals, against)
except oracles.Disagreement as disagreement:
    print(disagreement)
