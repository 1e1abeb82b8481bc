"""Search the closures and attributes of a replaced backward for the original one, where it is forbidden.

In process: passes: nothing keeps it from that.
"""

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "Silu"


def originals(function, depth=3):
    if depth:
        inner = [getattr(function, "__wrapped__", None), getattr(function, "__func__", None)]
        inner += [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        for each in filter(callable, inner):
            yield from originals(each, depth - 1)
    yield function


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        with torch.enable_grad():
            for function in originals(torch.autograd.grad):
                try:
                    leaf = z.detach().requires_grad_()
                    return function(leaf * torch.sigmoid(leaf), leaf, delta)[0]
                except Exception:
                    pass
        return torch.zeros_like(z)
