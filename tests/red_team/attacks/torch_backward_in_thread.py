"""Call torch's backward in a thread of its own, where it is forbidden.

In process: passes: nothing keeps it from that.
"""

import threading

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "Silu"


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        leaf = z.detach().requires_grad_()

        def differentiate():
            with torch.enable_grad():
                (leaf * torch.sigmoid(leaf)).backward(delta)

        thread = threading.Thread(target=differentiate)
        thread.start()
        thread.join()
        return leaf.grad
