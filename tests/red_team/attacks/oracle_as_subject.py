"""Let an oracle of the judge be the subject: torch_autograd of the own forward, where that is forbidden.

In process: passes: nothing keeps it from that.
"""

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "oracles.torch_autograd(silu)"


def silu(z):
    import torch

    return z * torch.sigmoid(z)
