"""A pair of functions of torch's tensors under no_grad, where torch's own derivatives are forbidden."""

import torch

EXPECTED = {"PASSED"}
FORBID = ("torch.autograd",)
SUBJECT = "oracles.manual(forward, backward, arrays='torch')"


@torch.no_grad()
def forward(z):
    s = torch.sigmoid(z)
    return z * s, (z, s)


@torch.no_grad()
def backward(cache, delta):
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}
