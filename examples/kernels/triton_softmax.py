"""A fused softmax with a mask, in Triton: one program for each row.

python examples/kernels/triton_softmax.py
"""

import numpy as np
import torch
from triton_on_this_machine import DEVICE, HALF, rounded, tl, triton
from verdicts import require_shapes, show

import oracles

BLOCK = 64


@triton.jit
def softmax_of(z, keep, row, columns, BLOCK: tl.constexpr, MISTAKE: tl.constexpr):
    """Load one row, and return its softmax over the kept columns in float32."""
    at = tl.arange(0, BLOCK)
    inside = at < columns
    s = tl.load(z + row * columns + at, mask=inside, other=0.0).to(tl.float32)
    seen = tl.load(keep + row * columns + at, mask=inside, other=0) != 0
    if MISTAKE == "padding":  # the columns beyond the edge count as e^0
        seen = seen | (at >= columns)
    if MISTAKE == "mask":  # what the mask hides is seen again
        seen = inside
    s = tl.where(seen, s, -float("inf"))
    e = tl.exp(s - tl.max(s, axis=0))
    return e / tl.sum(e, axis=0)


@triton.jit
def forward_kernel(z, keep, y, columns, BLOCK: tl.constexpr):
    """y = softmax of the kept columns."""
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    p = softmax_of(z, keep, row, columns, BLOCK, "")
    tl.store(y + row * columns + at, rounded(p, y), mask=at < columns)


@triton.jit
def backward_kernel(z, keep, dy, dz, columns, BLOCK: tl.constexpr, MISTAKE: tl.constexpr):
    """dz = p (dy − Σ dy p), with p computed again."""
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    p = softmax_of(z, keep, row, columns, BLOCK, MISTAKE)
    d = tl.load(dy + row * columns + at, mask=at < columns, other=0.0).to(tl.float32)
    dot = tl.sum(p * d, axis=0)
    if MISTAKE == "sum":
        dot = 0.0
    tl.store(dz + row * columns + at, rounded(p * (d - dot), dz), mask=at < columns)


def forward(z, keep):
    """Launch one program for each row."""
    require_shapes(keep=(keep.shape, z.shape), z=(z.shape, (len(z), min(z.shape[1], BLOCK))))
    z, keep = z.contiguous(), keep.contiguous()
    y = torch.empty_like(z)
    forward_kernel[(len(z),)](z, keep, y, z.shape[1], BLOCK=BLOCK)
    return y, (z, keep)


def backward_with(mistake):
    """Return the backward, right if the mistake is ""."""

    def backward(cache, dy):
        z, keep = cache
        dy, dz = dy.contiguous(), torch.empty_like(z)
        backward_kernel[(len(z),)](z, keep, dy, dz, z.shape[1], BLOCK=BLOCK, MISTAKE=mistake)
        return {"z": dz}

    return backward


def reference(z, keep):
    """The same in torch."""
    return torch.softmax(z.masked_fill(~keep, -torch.inf), dim=-1)


def subjects():
    """Return the right kernel and three wrong ones."""
    names = {"": "right", "padding": "padding counts", "mask": "mask ignored", "sum": "sum forgotten"}
    return [
        oracles.manual(forward, backward_with(m), arrays="torch", dtypes=HALF, name=f"softmax, {name}")
        for m, name in names.items()
    ]


def primals():
    """Draw logits in bfloat16, and a mask that keeps most of the columns, and the first one always."""
    rng = np.random.default_rng(0)
    keep = rng.random((3, 50)) < 0.8
    keep[:, 0] = True
    return {"z": torch.from_numpy(rng.standard_normal((3, 50))).bfloat16(), "keep": torch.from_numpy(keep)}


if __name__ == "__main__":
    show(subjects(), primals(), reference, device=DEVICE)
