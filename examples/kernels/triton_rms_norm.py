"""RMSNorm of a residual sum, in Triton: a tile of rows for each program, partial sums of the gain's gradient.

python examples/kernels/triton_rms_norm.py
"""

import torch
from triton_on_this_machine import DEVICE, HALF, rounded, tl, triton
from verdicts import require_shapes, show, stored

import oracles

EPS = 1e-5
BLOCK = 64
ROWS = 8  # of one program


@triton.jit
def load_rows(a, rows, columns, program, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Load a tile of rows in float32, with zeros beyond the edges."""
    at, column = program * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    return tl.load(a + at * columns + column, mask=(at < rows) & (column < columns), other=0.0).to(tl.float32)


@triton.jit
def store_rows(a, value, rows, columns, program, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Round a tile of rows, and store what is inside the edges."""
    at, column = program * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    tl.store(a + at * columns + column, rounded(value, a), mask=(at < rows) & (column < columns))


@triton.jit
def forward_kernel(x, residual, gain, y, total, rows, columns, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """s = x + residual and y = s / rms(s) · gain."""
    program, column = tl.program_id(0), tl.arange(0, BLOCK)
    s = load_rows(x, rows, columns, program, ROWS, BLOCK) + load_rows(residual, rows, columns, program, ROWS, BLOCK)
    g = tl.load(gain + column, mask=column < columns, other=0.0).to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(s * s, axis=1) / columns + eps)
    store_rows(y, s * inverse[:, None] * g[None, :], rows, columns, program, ROWS, BLOCK)
    store_rows(total, s, rows, columns, program, ROWS, BLOCK)


@triton.jit
def backward_kernel(
    x, residual, gain, dy, dtotal, dx, partial, rows, columns, eps,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, MISTAKE: tl.constexpr,
):  # fmt: skip
    """dx = inverse (g − h mean(g h)) + dtotal with h = s inverse and g = dy gain; a part of Σ dy h."""
    program, column = tl.program_id(0), tl.arange(0, BLOCK)
    s = load_rows(x, rows, columns, program, ROWS, BLOCK) + load_rows(residual, rows, columns, program, ROWS, BLOCK)
    d = load_rows(dy, rows, columns, program, ROWS, BLOCK)
    w = tl.load(gain + column, mask=column < columns, other=0.0).to(tl.float32)
    count = columns
    if MISTAKE == "block":  # divides by the size of the block
        count = BLOCK
    inverse = 1 / tl.sqrt(tl.sum(s * s, axis=1) / columns + eps)[:, None]
    h, g = s * inverse, d * w[None, :]
    ds = inverse * (g - h * (tl.sum(g * h, axis=1) / count)[:, None])
    if MISTAKE != "residual":  # forgets what arrives through the second output
        ds += load_rows(dtotal, rows, columns, program, ROWS, BLOCK)
    store_rows(dx, ds, rows, columns, program, ROWS, BLOCK)
    tl.store(partial + program * columns + column, tl.sum(d * h, axis=0), mask=column < columns)


def forward(x, residual, gain):
    """Launch one program for each tile of rows."""
    rows, columns = x.shape
    require_shapes(
        x=(x.shape, (rows, min(columns, BLOCK))), residual=(residual.shape, x.shape), gain=(gain.shape, (columns,))
    )
    x, residual = x.contiguous(), residual.contiguous()
    y, total = torch.empty_like(x), torch.empty_like(x)
    grid = (triton.cdiv(len(x), ROWS),)
    forward_kernel[grid](x, residual, gain.contiguous(), y, total, *x.shape, EPS, ROWS=ROWS, BLOCK=BLOCK)
    return (y, total), (x, residual, gain)


def backward_with(mistake):
    """Return the backward, right if the mistake is ""."""

    def backward(cache, deltas):
        x, residual, gain = cache
        programs = triton.cdiv(len(x), ROWS)
        dx, partial = torch.empty_like(x), x.new_empty((programs, x.shape[1]), dtype=torch.float32)
        backward_kernel[(programs,)](
            x, residual, gain.contiguous(), *(d.contiguous() for d in deltas), dx, partial, *x.shape, EPS,
            ROWS=ROWS, BLOCK=BLOCK, MISTAKE=mistake,
        )  # fmt: skip
        if mistake == "last":  # the last tile has fewer rows than the others, and is dropped
            partial = partial[: len(x) // ROWS]
        return {"x": dx, "residual": dx.clone(), "gain": partial.sum(0).to(gain.dtype)}

    return backward


def reference(x, residual, gain):
    """The same in torch."""
    total = x + residual
    return torch.nn.functional.rms_norm(total, total.shape[-1:], gain, eps=EPS), total


def subjects():
    """Return the right kernel and three wrong ones."""
    names = {"": "right", "block": "mean over the block", "last": "last tile dropped", "residual": "residual forgotten"}
    return [
        oracles.manual(forward, backward_with(m), arrays="torch", dtypes=HALF, name=f"rms norm, {name}")
        for m, name in names.items()
    ]


def primals():
    """Draw 12 rows: a tile of 8, and one of 4."""
    return stored(torch.bfloat16, x=(12, 48), residual=(12, 48), gain=(48,))


if __name__ == "__main__":
    show(subjects(), primals(), reference, device=DEVICE)
