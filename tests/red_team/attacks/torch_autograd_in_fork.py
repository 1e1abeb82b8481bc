"""Fork, switch off what watches in the fork, let torch differentiate there, and send the gradient back by a pipe.

In process: passes: nothing keeps it from that.
"""

import os
import sys

import numpy as np
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
        source, target = os.pipe()
        if os.fork() == 0:
            try:
                try:
                    sys.setprofile(None)
                except Exception:
                    pass
                with torch.enable_grad():
                    leaf = z.detach().requires_grad_()
                    (leaf * torch.sigmoid(leaf)).backward(delta)
                os.write(target, leaf.grad.numpy().tobytes())
            finally:
                os._exit(0)
        os.close(target)
        answer = os.read(source, 2**16)
        return torch.from_numpy(np.frombuffer(answer, delta.numpy().dtype).reshape(z.shape).copy())
