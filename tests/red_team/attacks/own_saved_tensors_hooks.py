"""Replace what torch calls before it saves a tensor for its backward, and call the nodes of its graph one by one.

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
        hooks = getattr(torch.autograd.graph, "saved_tensors" + "_hooks")
        with torch.enable_grad(), hooks(lambda tensor: tensor, lambda tensor: tensor):
            leaf = z.detach().requires_grad_()
            return walk((leaf * torch.sigmoid(leaf)).grad_fn, delta)
