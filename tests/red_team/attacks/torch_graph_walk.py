"""Call the nodes of torch's graph one after the other, without its engine.

In process: passes: nothing keeps it from that.
"""

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "Silu"


def walk(node, delta):
    """Return the gradient of the one leaf under a node."""
    if hasattr(node, "variable"):
        return delta
    found = node(delta)
    parts = found if isinstance(found, tuple) else (found,)
    return sum(walk(n, part) for (n, _), part in zip(node.next_functions, parts) if n is not None)


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            return walk((leaf * torch.sigmoid(leaf)).grad_fn, delta)
