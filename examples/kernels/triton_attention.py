"""Causal attention in Triton: online softmax forward; backward in two kernels, one for dq and one for dk and dv.

The forward keeps its output and log Σ e^s of each row; the backward computes the probabilities again, block by block.

python examples/kernels/triton_attention.py
"""

import torch
from triton_on_this_machine import DEVICE, HALF, rounded, tl, triton
from verdicts import require_shapes, show, stored

import oracles

SIZE = 16  # of a head
BLOCK = 16


@triton.jit
def load_block(a, steps, head, block, BLOCK: tl.constexpr, SIZE: tl.constexpr):
    """Load a block of rows of a head in float32, with zeros beyond the edge."""
    row, column = block * BLOCK + tl.arange(0, BLOCK)[:, None], tl.arange(0, SIZE)[None, :]
    return tl.load(a + (head * steps + row) * SIZE + column, mask=row < steps, other=0.0).to(tl.float32)


@triton.jit
def store_block(a, value, steps, head, block, BLOCK: tl.constexpr, SIZE: tl.constexpr):
    """Round a block of rows of a head, and store what is inside the edge."""
    row, column = block * BLOCK + tl.arange(0, BLOCK)[:, None], tl.arange(0, SIZE)[None, :]
    tl.store(a + (head * steps + row) * SIZE + column, rounded(value, a), mask=row < steps)


@triton.jit
def product(a, b):
    """A product in float32, not in tf32."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def seen(rows, columns, steps, BLOCK: tl.constexpr, LATER: tl.constexpr):
    """Which keys a query sees: none that is later by more than LATER, which is 0."""
    row, column = rows * BLOCK + tl.arange(0, BLOCK)[:, None], columns * BLOCK + tl.arange(0, BLOCK)[None, :]
    return (row + LATER >= column) & (column < steps) & (row < steps)


@triton.jit
def forward_kernel(q, k, v, y, lse, steps, scale, BLOCK: tl.constexpr, SIZE: tl.constexpr):
    """One block of queries: the maximum, the sum and the output are rescaled when the maximum grows."""
    rows, head = tl.program_id(0), tl.program_id(1)
    at = rows * BLOCK + tl.arange(0, BLOCK)
    a = load_block(q, steps, head, rows, BLOCK, SIZE)
    m = tl.full((BLOCK,), -1e30, tl.float32)
    total, o = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    for columns in range(0, rows + 1):
        s = product(a, tl.trans(load_block(k, steps, head, columns, BLOCK, SIZE))) * scale
        s = tl.where(seen(rows, columns, steps, BLOCK, 0), s, -1e30)
        new = tl.maximum(m, tl.max(s, axis=1))
        p, shrink = tl.exp(s - new[:, None]), tl.exp(m - new)
        total = total * shrink + tl.sum(p, axis=1)
        o = o * shrink[:, None] + product(p, load_block(v, steps, head, columns, BLOCK, SIZE))
        m = new
    store_block(y, o / total[:, None], steps, head, rows, BLOCK, SIZE)
    tl.store(lse + head * steps + at, m + tl.log(total), mask=at < steps)


@triton.jit
def pulled(
    q, k, v, y, lse, dy, steps, scale, head, rows, columns,
    BLOCK: tl.constexpr, SIZE: tl.constexpr, MISTAKE: tl.constexpr,
):  # fmt: skip
    """Return p and ds = p (dy vᵀ − Σ dy y) of a block of queries and a block of keys."""
    a, d = load_block(q, steps, head, rows, BLOCK, SIZE), load_block(dy, steps, head, rows, BLOCK, SIZE)
    at = rows * BLOCK + tl.arange(0, BLOCK)
    kept = tl.load(lse + head * steps + at, mask=at < steps, other=0.0)
    s = product(a, tl.trans(load_block(k, steps, head, columns, BLOCK, SIZE))) * scale
    mask = seen(rows, columns, steps, BLOCK, 0)
    if MISTAKE == "mask":  # the next key is seen too
        mask = seen(rows, columns, steps, BLOCK, 1)
    p = tl.where(mask, tl.exp(tl.where(mask, s - kept[:, None], 0.0)), 0.0)
    dots = tl.sum(d * load_block(y, steps, head, rows, BLOCK, SIZE), axis=1)
    if MISTAKE == "dots":  # Σ dy y is forgotten
        dots = dots * 0.0
    return p, p * (product(d, tl.trans(load_block(v, steps, head, columns, BLOCK, SIZE))) - dots[:, None])


@triton.jit
def dq_kernel(
    q, k, v, y, lse, dy, dq, steps, scale,
    BLOCK: tl.constexpr, SIZE: tl.constexpr, MISTAKE: tl.constexpr,
):  # fmt: skip
    """Dq of a block of queries: Σ over the blocks of keys that it sees."""
    rows, head = tl.program_id(0), tl.program_id(1)
    total = tl.zeros((BLOCK, SIZE), tl.float32)
    for columns in range(0, rows + 1):
        _, ds = pulled(q, k, v, y, lse, dy, steps, scale, head, rows, columns, BLOCK, SIZE, MISTAKE)
        total += product(ds, load_block(k, steps, head, columns, BLOCK, SIZE))
    store_block(dq, total * scale, steps, head, rows, BLOCK, SIZE)


@triton.jit
def dkv_kernel(
    q, k, v, y, lse, dy, dk, dv, steps, scale,
    BLOCK: tl.constexpr, SIZE: tl.constexpr, MISTAKE: tl.constexpr,
):  # fmt: skip
    """Dk and dv of a block of keys: Σ over the blocks of queries that see it."""
    columns, head = tl.program_id(0), tl.program_id(1)
    of_k, of_v = tl.zeros((BLOCK, SIZE), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    stop = tl.cdiv(steps, BLOCK)
    if MISTAKE == "last":  # the last block of queries has fewer rows, and is left out
        stop = steps // BLOCK
    for rows in range(columns, stop):
        p, ds = pulled(q, k, v, y, lse, dy, steps, scale, head, rows, columns, BLOCK, SIZE, MISTAKE)
        of_k += product(tl.trans(ds), load_block(q, steps, head, rows, BLOCK, SIZE))
        of_v += product(tl.trans(p), load_block(dy, steps, head, rows, BLOCK, SIZE))
    store_block(dk, of_k * scale, steps, head, columns, BLOCK, SIZE)
    store_block(dv, of_v, steps, head, columns, BLOCK, SIZE)


def forward(q, k, v):
    """Launch one program for each block of queries and each head."""
    require_shapes(q=(q.shape, (*q.shape[:2], SIZE)), k=(k.shape, q.shape), v=(v.shape, q.shape))
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    heads, steps, size = q.shape
    y, lse = torch.empty_like(q), q.new_empty((heads, steps), dtype=torch.float32)
    grid = (triton.cdiv(steps, BLOCK), heads)
    forward_kernel[grid](q, k, v, y, lse, steps, size**-0.5, BLOCK=BLOCK, SIZE=SIZE)
    return y, (q, k, v, y, lse)


def backward_with(mistake):
    """Return the backward, right if the mistake is ""."""

    def backward(cache, dy):
        q = cache[0]
        heads, steps, size = q.shape
        grid, sizes = (triton.cdiv(steps, BLOCK), heads), {"BLOCK": BLOCK, "SIZE": SIZE, "MISTAKE": mistake}
        dq, dk, dv = torch.empty_like(q), torch.empty_like(q), torch.empty_like(q)
        arguments = (*cache, dy.contiguous())
        dq_kernel[grid](*arguments, dq, steps, size**-0.5, **sizes)
        dkv_kernel[grid](*arguments, dk, dv, steps, size**-0.5, **sizes)
        return {"q": dq, "k": dk, "v": dv}

    return backward


def reference(q, k, v):
    """The same in torch, without blocks."""
    s = q @ k.transpose(-1, -2) * SIZE**-0.5
    return torch.softmax(s.masked_fill(~torch.ones_like(s).tril().bool(), -torch.inf), -1) @ v


def subjects():
    """Return the right kernels and three wrong ones."""
    names = {"": "right", "mask": "mask off by one", "dots": "row sums forgotten", "last": "last block of queries"}
    return [
        oracles.manual(forward, backward_with(m), arrays="torch", dtypes=HALF, name=f"attention, {name}")
        for m, name in names.items()
    ]


def primals():
    """Draw one head of 20 steps in bfloat16: a block of 16, and one of 4."""
    return stored(torch.bfloat16, q=(1, 20, SIZE), k=(1, 20, SIZE), v=(1, 20, SIZE))


if __name__ == "__main__":
    show(subjects(), primals(), reference, device=DEVICE)
