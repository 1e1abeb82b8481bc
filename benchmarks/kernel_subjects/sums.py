"""Kernels that add up many terms: embedding, and a linear layer in tiles and with split-K."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.kernel_subjects.kernel import ALL, HALF, Kernel, stored, summed_in_store, tiles, wide

ROWS, WIDTH, TOKENS = 6, 24, 2100  # about 350 terms for each row of the table


def tokens(rng):
    """A table, and the row of each token."""
    return {"table": rng.standard_normal((ROWS, WIDTH)), "ids": rng.integers(0, ROWS, TOKENS)}


EMBEDDING = Kernel(
    "embedding",
    lambda table, ids: (table[ids], (table, ids)),
    lambda table, ids: torch.nn.functional.embedding(ids, table),
    tokens,
)


@EMBEDDING.right("sums in float32", *ALL)
def embedding_once(cache, delta):
    """Atomics on a buffer of float32, rounded at the end."""
    table, ids = cache
    total = np.zeros(table.shape, wide(table).dtype)
    np.add.at(total, ids, wide(delta))
    return {"table": stored(total, table)}


@EMBEDDING.right("atomics in another order", *HALF)
def embedding_reversed(cache, delta):
    """The last token first."""
    return embedding_once((cache[0], cache[1][::-1]), delta[::-1])


@EMBEDDING.right("sorted segments", *HALF)
def embedding_sorted(cache, delta):
    """One sum for each row of the table."""
    table, ids = cache
    return {"table": stored(np.stack([wide(delta)[ids == row].sum(axis=0) for row in range(ROWS)]), table)}


@EMBEDDING.right("a product with one-hot rows", *HALF)
def embedding_product(cache, delta):
    """One-hot rows, transposed, times δ."""
    table, ids = cache
    hot = (np.arange(ROWS)[:, None] == ids).astype(wide(table).dtype)
    return {"table": stored(hot @ wide(delta), table)}


@EMBEDDING.bug("atomics in the stored dtype", *HALF)
def embedding_in_store(cache, delta):
    """About 350 terms are added up in bfloat16."""
    _, ids = cache
    return {"table": np.stack([summed_in_store(delta[ids == row]) for row in range(ROWS)])}


@EMBEDDING.bug("a repeated row counts once", "float32", "bfloat16")
def embedding_assigned(cache, delta):
    """The last token wins."""
    table, ids = cache
    total = np.zeros_like(table)
    total[ids] = delta
    return {"table": total}


@EMBEDDING.bug("one update lost", "float32", "bfloat16")
def embedding_lost(cache, delta):
    """Two updates meet, and one is lost: token 5."""
    d = wide(delta).copy()
    d[5] = 0
    return embedding_once(cache, d)


@EMBEDDING.bug("last tile of tokens dropped")
def embedding_last_tile(cache, delta):
    """Whole tiles of 128 tokens alone."""
    whole = TOKENS // 128 * 128
    return embedding_once((cache[0], cache[1][:whole]), delta[:whole])


def linear_forward(x, W, b):
    """x W + b."""
    return stored(wide(x) @ wide(W) + wide(b), x), (x, W, b)


SHAPES = {"x": (300, 16), "W": (16, 16), "b": (16,)}
LINEAR = Kernel("linear", linear_forward, lambda x, W, b: x @ W + b, SHAPES)
LINEAR.torch_backward(*HALF)


@LINEAR.right("one rounding", *ALL)
def linear_once(cache, delta):
    """Products and sums in float32."""
    x, W, b = cache
    d = wide(delta)
    return {"x": stored(d @ wide(W).T, x), "W": stored(wide(x).T @ d, W), "b": stored(d.sum(axis=0), b)}


@LINEAR.right("tiles of 64 terms", *HALF)
def linear_tiled(cache, delta):
    """Each tile of rows adds its product in float32."""
    x, W, b = cache
    d, dW, db = wide(delta), 0, 0
    for tile in tiles(len(x), 64):
        dW, db = dW + wide(x[tile]).T @ d[tile], db + d[tile].sum(axis=0)
    return {"x": stored(d @ wide(W).T, x), "W": stored(dW, W), "b": stored(db, b)}


@LINEAR.right("split-K in 4, last part first", *HALF)
def linear_split(cache, delta):
    """Four partial products in float32, added in reverse order."""
    x, W, b = cache
    d = wide(delta)
    parts = [wide(x[k::4]).T @ d[k::4] for k in range(4)]
    dW = ((parts[3] + parts[2]) + parts[1]) + parts[0]
    return {"x": stored(d @ wide(W).T, x), "W": stored(dW, W), "b": stored(d[::-1].sum(axis=0), b)}


@LINEAR.right("one term after the other", *HALF)
def linear_sequential(cache, delta):
    """A single accumulator of float32, without blocks."""
    x, W, b = cache
    d, dW, db = wide(delta), 0, 0
    for row, delta_row in zip(wide(x), d, strict=True):
        dW, db = dW + row[:, None] * delta_row, db + delta_row
    return {"x": stored(d @ wide(W).T, x), "W": stored(dW, W), "b": stored(db, b)}


@LINEAR.bug("bias accumulated in the stored dtype", *HALF)
def linear_bias_in_store(cache, delta):
    """300 rows are added up in bfloat16."""
    return {**linear_once(cache, delta), "b": summed_in_store(delta)}


@LINEAR.bug("weights accumulated in the stored dtype", *HALF, draw={"x": (300, 6), "W": (6, 8), "b": (8,)})
def linear_weights_in_store(cache, delta):
    """300 products are added up in bfloat16."""
    x, W, _ = cache
    terms = stored(wide(x)[:, :, None] * wide(delta)[:, None, :], W)
    return {**linear_once(cache, delta), "W": summed_in_store(terms)}


@LINEAR.bug("last tile of terms dropped", "float32", "bfloat16")
def linear_last_tile(cache, delta):
    """Whole tiles of 64 rows alone."""
    x, W, _ = cache
    whole = len(x) // 64 * 64
    return {**linear_once(cache, delta), "W": stored(wide(x[:whole]).T @ wide(delta[:whole]), W)}


@LINEAR.bug("one part of split-K lost")
def linear_lost_part(cache, delta):
    """Three of four parts."""
    x, W, _ = cache
    d = wide(delta)
    return {**linear_once(cache, delta), "W": stored(sum(wide(x[k::4]).T @ d[k::4] for k in range(3)), W)}


@LINEAR.bug("a part counted twice at the edge")
def linear_overlap(cache, delta):
    """The last tile is moved back to be whole, and its first rows count twice."""
    x, W, _ = cache
    d, dW = wide(delta), 0
    for tile in tiles(len(x), 64):
        start = min(tile.start, len(x) - 64)
        dW = dW + wide(x[start : start + 64]).T @ d[start : start + 64]
    return {**linear_once(cache, delta), "W": stored(dW, W)}


@LINEAR.bug("W where its transpose belongs")
def linear_transposed(cache, delta):
    """W is square, so that no shape tells."""
    x, W, _ = cache
    return {**linear_once(cache, delta), "x": stored(wide(delta) @ wide(W), x)}


@LINEAR.bug("mean of the bias's gradient")
def linear_mean(cache, delta):
    """A mean for a sum."""
    return {**linear_once(cache, delta), "b": stored(wide(delta).mean(axis=0), delta)}


@LINEAR.bug("weights' gradient x 1.05", *HALF)
def linear_five_percent(cache, delta):
    """Off by 5 %."""
    right = linear_once(cache, delta)
    return {**right, "W": stored(1.05 * wide(right["W"]), right["W"])}


@LINEAR.bug("accumulator forgotten between tiles")
def linear_overwritten(cache, delta):
    """Each tile writes its own product over the sum."""
    x, W, _ = cache
    dW = 0
    for tile in tiles(len(x), 64):
        dW = wide(x[tile]).T @ wide(delta[tile])
    return {**linear_once(cache, delta), "W": stored(dW, W)}
