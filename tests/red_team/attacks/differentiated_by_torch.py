"""Let the adapter torch_differentiated be the subject, where torch's own derivatives are forbidden.

In process: passes: nothing keeps it from that.
"""

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "oracles.torch_differentiated(silu)"


def silu(z):
    return z * torch.sigmoid(z)
