"""SwiGLU in Triton whose backward writes the gradients over the inputs, as fused layers do to save memory.

python examples/kernels/triton_swiglu.py
"""

import torch
from triton_on_this_machine import DEVICE, HALF, rounded, tl, triton
from verdicts import require_shapes, show, stored

import oracles

BLOCK = 64


@triton.jit
def forward_kernel(gate, up, y, n, BLOCK: tl.constexpr):
    """y = gate σ(gate) up."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gate + at, mask=at < n, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(y + at, rounded(g * u / (1 + tl.exp(-g)), y), mask=at < n)


@triton.jit
def backward_kernel(gate, up, dy, n, BLOCK: tl.constexpr, MISTAKE: tl.constexpr):
    """Write dgate over gate and dup over up."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gate + at, mask=at < n, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=at < n, other=0.0).to(tl.float32)
    d = tl.load(dy + at, mask=at < n, other=0.0).to(tl.float32)
    s = 1 / (1 + tl.exp(-g))
    slope = s * (1 + g * (1 - s))
    if MISTAKE == "slope":  # the derivative of σ is forgotten
        slope = s
    tl.store(gate + at, rounded(d * u * slope, gate), mask=at < n)
    if MISTAKE == "early":  # gate is read after its gradient was written
        g = tl.load(gate + at, mask=at < n, other=0.0).to(tl.float32)
        s = 1 / (1 + tl.exp(-g))
    tl.store(up + at, rounded(d * g * s, up), mask=at < n)


def forward(gate, up):
    """Launch one program for each block."""
    require_shapes(up=(up.shape, gate.shape))
    gate, up = gate.contiguous(), up.contiguous()
    y = torch.empty_like(gate)
    forward_kernel[(triton.cdiv(y.numel(), BLOCK),)](gate, up, y, y.numel(), BLOCK=BLOCK)
    return y, (gate, up)


def backward_with(mistake):
    """Return the backward, right if the mistake is "". It gets copies, since its inputs are written over."""

    def backward(cache, dy):
        gate, up = (a.clone() for a in cache)
        programs = triton.cdiv(gate.numel(), BLOCK)
        if mistake == "last":  # only whole blocks are computed
            programs = gate.numel() // BLOCK
        backward_kernel[(programs,)](gate, up, dy.contiguous(), gate.numel(), BLOCK=BLOCK, MISTAKE=mistake)
        return {"gate": gate, "up": up}

    return backward


def reference(gate, up):
    """The same in torch."""
    return torch.nn.functional.silu(gate) * up


def subjects():
    """Return the right kernel and three wrong ones."""
    names = {"": "right", "slope": "slope of the sigmoid", "early": "written too early", "last": "last block"}
    return [
        oracles.manual(forward, backward_with(m), arrays="torch", dtypes=HALF, name=f"swiglu, {name}")
        for m, name in names.items()
    ]


def primals():
    """Draw 100 numbers in bfloat16: a block of 64, and 36 more."""
    return stored(torch.bfloat16, gate=(4, 25), up=(4, 25))


if __name__ == "__main__":
    show(subjects(), primals(), reference, device=DEVICE)
