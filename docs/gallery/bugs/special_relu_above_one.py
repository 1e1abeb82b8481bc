"""A slope above 1 at the kink of ReLU: no subgradient there."""

import numpy as np
import torch

import oracles


def backward(z, delta):
    return {"z": delta * np.where(z == 0, 2.0, z > 0)}  # the bug: at 0 anything from 0 to 1 is right


primals = {"z": np.array([[0.0, 1.5, -2.0], [3.0, 0.0, -1.0]])}
subject = oracles.manual(lambda z: (np.maximum(z, 0), z), backward, name="ReLU")
against = [oracles.torch_autograd(torch.relu)]
oracles.check(subject, primals, against)
