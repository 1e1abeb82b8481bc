"""Rotary embedding in Triton: pairs of columns are rotated by the position times a frequency; backward rotates back.

python examples/kernels/triton_rotary.py
"""

import numpy as np
import torch
from triton_on_this_machine import DEVICE, HALF, rounded, tl, triton
from verdicts import require_shapes, show

import oracles

PAIRS = 8
ROWS = 8  # of one program


@triton.jit
def rotate_kernel(x, cosines, sines, y, rows, sign, ROWS: tl.constexpr, PAIRS: tl.constexpr, MISTAKE: tl.constexpr):
    """(a, b) becomes (a cos − b sin, a sin + b cos), with the sine times a sign."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    pair = tl.arange(0, PAIRS)[None, :]
    first, inside = row * 2 * PAIRS + pair, row < rows
    second = first + PAIRS
    if MISTAKE == "neighbours":  # pairs of neighbours, where the forward pairs the halves
        first, second = first + pair, first + pair + 1
    a = tl.load(x + first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x + second, mask=inside, other=0.0).to(tl.float32)
    position = row
    if MISTAKE == "position":  # positions count from 1
        position = row + 1
    known = inside & (position < rows)
    cos = tl.load(cosines + position * PAIRS + pair, mask=known, other=1.0)
    sin = sign * tl.load(sines + position * PAIRS + pair, mask=known, other=0.0)
    tl.store(y + first, rounded(a * cos - b * sin, y), mask=inside)
    tl.store(y + second, rounded(a * sin + b * cos, y), mask=inside)


def rotated(x, cosines, sines, sign, mistake=""):
    """Launch one program for each tile of rows."""
    require_shapes(x=(x.shape, (len(x), 2 * PAIRS)))
    x = x.contiguous()
    y = torch.empty_like(x)
    tables = cosines.float().contiguous(), sines.float().contiguous()
    grid = (triton.cdiv(len(x), ROWS),)
    rotate_kernel[grid](x, *tables, y, len(x), sign, ROWS=ROWS, PAIRS=PAIRS, MISTAKE=mistake)
    return y


def tables(rows):
    """Return the cosines and sines of each position and pair, in float32."""
    angles = np.arange(rows)[:, None] * 100.0 ** (-np.arange(PAIRS) / PAIRS)
    return torch.from_numpy(np.cos(angles)).float(), torch.from_numpy(np.sin(angles)).float()


def forward(x):
    """Rotate each row by its position."""
    return rotated(x, *(table.to(x.device) for table in tables(len(x))), 1), None


def backward_with(mistake):
    """Return the backward, right if the mistake is ""."""

    def backward(_, delta):
        sign = 1 if mistake == "sign" else -1
        return {"x": rotated(delta, *(table.to(delta.device) for table in tables(len(delta))), sign, mistake)}

    return backward


def reference(x):
    """The same in torch."""
    cos, sin = (table.to(x) for table in tables(len(x)))
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def subjects():
    """Return the right kernel and three wrong ones."""
    names = {"": "right", "sign": "sign of the sine", "position": "positions from 1", "neighbours": "neighbours paired"}
    return [
        oracles.manual(forward, backward_with(m), arrays="torch", dtypes=HALF, name=f"rotary, {name}")
        for m, name in names.items()
    ]


def primals():
    """Draw 12 positions in bfloat16: a tile of 8, and one of 4."""
    return {"x": torch.from_numpy(np.random.default_rng(0).standard_normal((12, 2 * PAIRS))).bfloat16()}


if __name__ == "__main__":
    show(subjects(), primals(), reference, device=DEVICE)
