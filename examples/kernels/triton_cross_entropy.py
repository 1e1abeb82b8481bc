"""Cross-entropy in Triton that writes the gradient over the logits in the forward, and returns (loss, None).

The logits of a large vocabulary are the largest array of a training step, so such kernels keep no copy of them. The
second output is a regularisation term that is off. `adapted` judges the Function on a copy of the logits.

python examples/kernels/triton_cross_entropy.py
"""

import numpy as np
import torch
from triton_on_this_machine import DEVICE, HALF, rounded, tl, triton
from verdicts import require_shapes, show

import oracles

BLOCK = 32


@triton.jit
def entropy_kernel(logits, target, loss, columns, BLOCK: tl.constexpr, MISTAKE: tl.constexpr):
    """loss = lse − z[target], online over blocks; then p − 1 at the target is written over the logits."""
    row = tl.program_id(0)
    start, goal = logits + row * columns, tl.load(target + row)
    largest, total = -float("inf"), 0.0
    for first in range(0, columns, BLOCK):
        at = first + tl.arange(0, BLOCK)
        z = tl.load(start + at, mask=at < columns, other=-float("inf")).to(tl.float32)
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    lse = largest + tl.log(total)
    tl.store(loss + row, rounded(lse - tl.load(start + goal).to(tl.float32), loss))
    stop = columns
    if MISTAKE == "last":  # the last block keeps its logits
        stop = columns // BLOCK * BLOCK
    for first in range(0, stop, BLOCK):
        at = first + tl.arange(0, BLOCK)
        z = tl.load(start + at, mask=at < columns, other=-float("inf")).to(tl.float32)
        p = tl.exp(z - lse)
        if MISTAKE == "stored":  # p is stored before 1 is subtracted
            p = rounded(p, logits).to(tl.float32)
        tl.store(start + at, rounded(tl.where(at == goal, p - 1, p), logits), mask=at < columns)


@triton.jit
def scale_kernel(gradient, delta, columns, BLOCK: tl.constexpr):
    """Multiply each row by the cotangent of its loss."""
    row = tl.program_id(0)
    d = tl.load(delta + row).to(tl.float32)
    for first in range(0, columns, BLOCK):
        at = gradient + row * columns + first + tl.arange(0, BLOCK)
        inside = first + tl.arange(0, BLOCK) < columns
        tl.store(at, rounded(tl.load(at, mask=inside, other=0.0).to(tl.float32) * d, gradient), mask=inside)


class Entropy(torch.autograd.Function):
    """(loss of each row, None)."""

    MISTAKE = ""

    @classmethod
    def forward(cls, ctx, logits, target):
        """Compute the loss, and write the gradient over the logits."""
        loss = logits.new_empty(len(logits))
        entropy_kernel[(len(logits),)](logits, target, loss, logits.shape[1], BLOCK=BLOCK, MISTAKE=cls.MISTAKE)
        ctx.gradient = logits.detach()
        return loss, None

    @classmethod
    def backward(cls, ctx, delta, _):
        """Scale what the forward wrote."""
        gradient = ctx.gradient
        if cls.MISTAKE != "scale":  # a loss scale, and 1/N of a mean, arrive in delta
            scale_kernel[(len(gradient),)](gradient, delta.contiguous(), gradient.shape[1], BLOCK=BLOCK)
        return gradient, None


def adapted(function, name):
    """Judge the Function on a copy of the logits, which it may write over; its output is the loss alone."""

    def forward(logits, target):
        require_shapes(target=(target.shape, logits.shape[:1]))
        if target.numel() and not 0 <= target.min() <= target.max() < logits.shape[1]:
            raise ValueError("target: no such column")
        leaf = logits.detach().clone().contiguous().requires_grad_()
        with torch.enable_grad():
            loss, nothing = function.apply(leaf, target.contiguous())
        assert nothing is None
        return loss.detach(), (leaf, loss, logits, target)

    def backward(cache, delta):
        leaf, loss, logits, target = cache
        _, (leaf, loss, *_) = forward(logits, target)  # the scaling in place allows one pullback for each forward
        return {"logits": torch.autograd.grad(loss, leaf, delta)[0]}

    return oracles.manual(forward, backward, arrays="torch", dtypes=HALF, name=name)


def reference(logits, target):
    """The same in torch."""
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


def subjects():
    """Return the right kernel and three wrong ones."""
    names = {"": "right", "stored": "p stored, then - 1", "last": "last block", "scale": "loss scale forgotten"}
    functions = {name: type("Entropy", (Entropy,), {"MISTAKE": mistake}) for mistake, name in names.items()}
    return [adapted(function, f"cross-entropy, {name}") for name, function in functions.items()]


def primals():
    """Draw confident logits in bfloat16: the target has a probability of about 0.99."""
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((3, 75)), rng.integers(0, 75, 3)
    logits[np.arange(3), target] += 9
    return {"logits": torch.from_numpy(logits).bfloat16(), "target": torch.from_numpy(target)}


if __name__ == "__main__":
    # Without a declaration, a kernel that stores its intermediates in bfloat16 would be right up to these roundings.
    show(subjects(), primals(), reference, device=DEVICE, numerics=oracles.Numerics("bfloat16"))
