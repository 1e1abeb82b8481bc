"""Causal attention with grouped queries, in blocks, and rotary embedding."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

from benchmarks.kernel_subjects.kernel import ALL, HALF, Kernel, stored, tiles, wide

HEADS, GROUPS, STEPS, SIZE = 4, 2, 40, 8
SCALE = float(SIZE**-0.5)
BLOCK = 16


def visible(rows, columns):
    """Which keys a query sees: those that are not later."""
    return np.arange(rows.start, rows.stop)[:, None] >= np.arange(columns.start, columns.stop)


def spread(a):
    """Repeat the heads of keys or values: head h of the queries uses head h // 2."""
    return np.repeat(a, HEADS // GROUPS, axis=0)


def gathered(a):
    """Add up the gradients of the queries' heads of each group."""
    return a.reshape(GROUPS, HEADS // GROUPS, *a.shape[1:]).sum(axis=1)


def turned(a):
    """Exchange the last two axes."""
    return np.swapaxes(a, -1, -2)


def attention_forward(q, k, v):
    """Online softmax over blocks of keys; keep the inputs, the output and log Σ e^s in float32."""
    q32, k32, v32 = wide(q), spread(wide(k)), spread(wide(v))
    m, total, o = q32[..., :1] * 0 - np.inf, 0, 0
    for block in tiles(STEPS, BLOCK):
        s = q32 @ turned(k32[:, block]) * SCALE
        s = np.where(visible(slice(0, STEPS), block), s, -np.inf)
        new = np.maximum(m, s.max(axis=-1, keepdims=True))
        p, shrink = np.exp(s - new), np.exp(m - new)
        total, o, m = total * shrink + p.sum(axis=-1, keepdims=True), o * shrink + p @ v32[:, block], new
    y = stored(o / total, q)
    return y, (q, k, v, y, m + np.log(total))


def attention_reference(q, k, v):
    """The same in torch, without blocks."""
    k, v = (a.repeat_interleave(HEADS // GROUPS, dim=0) for a in (k, v))
    s = q @ k.transpose(-1, -2) * SCALE
    return torch.softmax(s.masked_fill(~torch.ones(STEPS, STEPS).tril().bool(), -torch.inf), -1) @ v


ATTENTION = Kernel(
    "attention",
    attention_forward,
    attention_reference,
    {"q": (HEADS, STEPS, SIZE), "k": (GROUPS, STEPS, SIZE), "v": (GROUPS, STEPS, SIZE)},
    once=False,  # the backward uses the output as it was stored
)
ATTENTION.torch_backward(*HALF)


def probabilities(q32, k32, lse, rows, columns, offset=0):
    """e^(s − lse) of a block, with the causal mask."""
    s = q32[:, rows] @ turned(k32[:, columns]) * SCALE
    seen = np.arange(rows.start, rows.stop)[:, None] + offset >= np.arange(columns.start, columns.stop)
    return np.where(seen, np.exp(np.where(seen, s - lse[:, rows], 0)), 0)


def attention_gradients(cache, delta, block=STEPS, **change):
    """The gradients, block by block; `change` names what a wrong kernel does otherwise."""
    q, k, v, y, lse = cache
    q32, d, o = wide(q), wide(delta), wide(y)
    k32, v32 = change.get("spread", spread)(wide(k)), change.get("spread", spread)(wide(v))
    dq, dk, dv = np.zeros_like(q32), np.zeros_like(q32), np.zeros_like(q32)
    dots = (d * o).sum(axis=-1, keepdims=True) * change.get("dots", 1)
    whole = change.get("columns", tiles(STEPS, block))
    for columns in whole:
        for rows in tiles(STEPS, block):
            p = probabilities(q32, k32, lse, rows, columns, change.get("offset", 0))
            p = change.get("rounded", lambda a: a)(p)
            ds = p * (d[:, rows] @ turned(v32[:, columns]) - dots[:, rows])
            dq[:, rows] += ds @ k32[:, columns] * change.get("scale", SCALE)
            dk[:, columns] += turned(ds) @ q32[:, rows] * SCALE
            dv[:, columns] += turned(p) @ d[:, rows]
    collect = change.get("gathered", gathered)
    return {"q": stored(dq, q), "k": stored(collect(dk), k), "v": stored(collect(dv), v)}


@ATTENTION.right("no blocks", *HALF)
def attention_whole(cache, delta):
    """One block of all keys."""
    return attention_gradients(cache, delta)


@ATTENTION.right("blocks of 16", *ALL)
def attention_blocks(cache, delta):
    """Blocks of 16 rows and 16 columns."""
    return attention_gradients(cache, delta, BLOCK)


@ATTENTION.right("blocks of 24, last columns first", *HALF)
def attention_other_blocks(cache, delta):
    """Another tiling, in another order."""
    return attention_gradients(cache, delta, 24, columns=tiles(STEPS, 24)[::-1])


@ATTENTION.right("probabilities in the stored dtype for the product")
def attention_rounded_products(cache, delta):
    """p is rounded before the tensor cores multiply it, as fused attention does."""
    return attention_gradients(cache, delta, BLOCK, rounded=lambda p: wide(stored(p, cache[0])))


@ATTENTION.bug("scale forgotten in dq", *HALF)
def attention_unscaled(cache, delta):
    """dq without 1 / √d."""
    return attention_gradients(cache, delta, BLOCK, scale=1.0)


@ATTENTION.bug("mask off by one", *HALF)
def attention_off_by_one(cache, delta):
    """A query sees the next key in the backward."""
    return attention_gradients(cache, delta, BLOCK, offset=1)


@ATTENTION.bug("row sums of δ o forgotten")
def attention_without_dots(cache, delta):
    """ds = p · dp."""
    return attention_gradients(cache, delta, BLOCK, dots=0)


@ATTENTION.bug("last block of keys dropped")
def attention_last_block(cache, delta):
    """Whole blocks of 16 keys alone."""
    return attention_gradients(cache, delta, BLOCK, columns=tiles(STEPS // BLOCK * BLOCK, BLOCK))


@ATTENTION.bug("heads mapped by h % 2", "float32", "bfloat16")
def attention_mapping(cache, delta):
    """Head h reads the keys of head h % 2 instead of h // 2."""
    return attention_gradients(cache, delta, BLOCK, spread=lambda a: np.tile(a, (HEADS // GROUPS, 1, 1)))


@ATTENTION.bug("one head of each group lost")
def attention_one_head(cache, delta):
    """The gradients of a group's heads are written over one another."""
    return attention_gradients(cache, delta, BLOCK, gathered=lambda a: a[1 :: HEADS // GROUPS].copy())


@ATTENTION.bug("probabilities rounded to float8", in_float64=False)
def attention_float8(cache, delta):
    """p in float8 (e4m3)."""
    return attention_gradients(
        cache, delta, BLOCK, rounded=lambda p: p.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    )


@ATTENTION.bug("dv x 1.05")
def attention_five_percent(cache, delta):
    """Off by 5 %."""
    right = attention_gradients(cache, delta, BLOCK)
    return {**right, "v": stored(1.05 * wide(right["v"]), right["v"])}


LENGTH, HALF_SIZE = 300, 8


def angles(position):
    """Position times 10000^(−2i/d), in float64."""
    return position[:, None] * 10000.0 ** (-np.arange(HALF_SIZE) / HALF_SIZE)


def rotated(x, sign, position=None):
    """Rotate the pairs (x_i, x_(i+8)) by sign times the angles; cosines and sines in float32."""
    by = angles(np.arange(LENGTH) if position is None else position)
    cos, sin = np.cos(by).astype(wide(x).dtype), sign * np.sin(by).astype(wide(x).dtype)
    a, b = wide(x)[:, :HALF_SIZE], wide(x)[:, HALF_SIZE:]
    return stored(np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=1), x)


def rotary_reference(x):
    """The same in torch."""
    by = torch.from_numpy(angles(np.arange(LENGTH)))
    cos, sin = by.cos().to(x.dtype), by.sin().to(x.dtype)
    a, b = x[:, :HALF_SIZE], x[:, HALF_SIZE:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=1)


ROTARY = Kernel("rotary", lambda x: (rotated(x, 1), x), rotary_reference, {"x": (LENGTH, 2 * HALF_SIZE)})


@ROTARY.right("one rounding", *ALL)
def rotary_once(x, delta):
    """Rotate back."""
    return {"x": rotated(delta, -1)}


@ROTARY.right("tiles of 64 positions", *HALF)
def rotary_tiled(x, delta):
    """Rotate back, tile by tile."""
    dx = np.full(x.shape, np.nan, x.dtype)
    for tile in tiles(LENGTH, 64):
        by = angles(np.arange(tile.start, tile.stop))
        cos, sin = np.cos(by).astype(wide(x).dtype), np.sin(by).astype(wide(x).dtype)
        a, b = wide(delta)[tile, :HALF_SIZE], wide(delta)[tile, HALF_SIZE:]
        dx[tile] = stored(np.concatenate([a * cos + b * sin, b * cos - a * sin], axis=1), x)
    return {"x": dx}


@ROTARY.bug("sign of the sine", *HALF)
def rotary_sign(x, delta):
    """The gradient is rotated forward."""
    return {"x": rotated(delta, 1)}


@ROTARY.bug("positions one too high")
def rotary_next_position(x, delta):
    """The backward counts positions from 1."""
    return {"x": rotated(delta, -1, np.arange(1, LENGTH + 1))}


@ROTARY.bug("positions in bfloat16", in_float64=False)
def rotary_rounded_positions(x, delta):
    """Positions above 256 are rounded to even numbers."""
    return {"x": rotated(delta, -1, np.arange(LENGTH).astype(ml_dtypes.bfloat16).astype(np.float64))}


@ROTARY.bug("neighbours for halves")
def rotary_interleaved(x, delta):
    """The backward rotates pairs (x_2i, x_2i+1)."""
    order = np.concatenate([np.arange(0, 2 * HALF_SIZE, 2), np.arange(1, 2 * HALF_SIZE, 2)])
    dx = np.empty_like(delta)
    dx[:, order] = rotated(delta[:, order], -1)
    return {"x": dx}


@ROTARY.bug("second half copied")
def rotary_half(x, delta):
    """The second half of each row keeps the cotangent as it was given."""
    dx = rotated(delta, -1)
    dx[:, HALF_SIZE:] = delta[:, HALF_SIZE:]
    return {"x": dx}
