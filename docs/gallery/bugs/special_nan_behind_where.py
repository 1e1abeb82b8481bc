"""0 · ∞ behind a where: the forward hides the singular point, the backward does not."""

import numpy as np
import torch

import oracles


def forward(x):
    return np.where(x > 0, np.sqrt(np.abs(x)), 0.0), x


def backward(x, delta):
    with np.errstate(all="ignore"):
        return {"x": delta * (x > 0) * 0.5 / np.sqrt(np.abs(x))}  # the bug: NaN at 0


primals = {"x": np.array([[0.5, 2.0, 0.0], [1.0, 0.0, 3.0]])}
subject = oracles.manual(forward, backward, name="safe sqrt")
against = [oracles.torch_autograd(lambda x: torch.where(x > 0, torch.where(x > 0, x, 1).sqrt(), 0))]
oracles.check(subject, primals, against)
