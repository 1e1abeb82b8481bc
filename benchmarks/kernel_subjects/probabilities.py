"""Softmax and cross-entropy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

from benchmarks.kernel_subjects.kernel import ALL, HALF, Kernel, stored, tiles, wide

GRID = (20, 150)
BFLOAT16 = ml_dtypes.bfloat16


def softmax(z):
    """Softmax over the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_keeping_z(z):
    """Keep the input."""
    return stored(softmax(wide(z)), z), z


SOFTMAX = Kernel("softmax", softmax_keeping_z, lambda z: torch.softmax(z, -1), {"z": GRID})
SOFTMAX.torch_backward(*HALF)


def pull_softmax(p, delta):
    """p (δ − Σ δ p)."""
    return p * (delta - (delta * p).sum(axis=-1, keepdims=True))


@SOFTMAX.right("one rounding", *ALL)
def softmax_once(z, delta):
    """Softmax again in float32."""
    return {"z": stored(pull_softmax(softmax(wide(z)), wide(delta)), z)}


@SOFTMAX.right("online, blocks of 64", *HALF)
def softmax_online(z, delta):
    """Maximum, sum and Σ δ e^z of blocks of columns, rescaled when the maximum grows."""
    z32, d = wide(z), wide(delta)
    m, total, dot = z32[:, :1] * 0 - np.inf, 0, 0
    for tile in tiles(z.shape[1], 64):
        new = np.maximum(m, z32[:, tile].max(axis=-1, keepdims=True))
        e, shrink = np.exp(z32[:, tile] - new), np.exp(m - new)
        total = total * shrink + e.sum(axis=-1, keepdims=True)
        dot = dot * shrink + (e * d[:, tile]).sum(axis=-1, keepdims=True)
        m = new
    return {"z": stored(np.exp(z32 - m) / total * (d - dot / total), z)}


def softmax_keeping_y(z):
    """Keep the stored output."""
    y = stored(softmax(wide(z)), z)
    return y, y


@SOFTMAX.right("from the stored output", *HALF, forward=softmax_keeping_y, once=False)
def softmax_from_stored(y, delta):
    """Use y as it was rounded, as frameworks do."""
    return {"z": stored(pull_softmax(wide(y), wide(delta)), y)}


@SOFTMAX.bug("sum forgotten", *HALF)
def softmax_diagonal(z, delta):
    """p δ (1 − p): the diagonal of the Jacobian alone."""
    p = softmax(wide(z))
    return {"z": stored(p * (1 - p) * wide(delta), z)}


@SOFTMAX.bug("sum over whole blocks of 64 alone", "float32", "bfloat16")
def softmax_last_block(z, delta):
    """Σ δ p leaves out the last block of columns."""
    p, d, whole = softmax(wide(z)), wide(delta), z.shape[-1] // 64 * 64
    return {"z": stored(p * (d - (d * p)[:, :whole].sum(axis=-1, keepdims=True)), z)}


@SOFTMAX.bug("maximum not rescaled")
def softmax_without_rescaling(z, delta):
    """The running sum is not multiplied by e^(old − new) when the maximum grows."""
    z32, d = wide(z), wide(delta)
    m, total = z32[:, :1] * 0 - np.inf, 0
    for tile in tiles(z.shape[1], 64):
        m = np.maximum(m, z32[:, tile].max(axis=-1, keepdims=True))
        total = total + np.exp(z32[:, tile] - m).sum(axis=-1, keepdims=True)
    return {"z": stored(pull_softmax(np.exp(z32 - m) / total, d), z)}


@SOFTMAX.bug("probabilities rounded to bfloat16", "float32", in_float64=False)
def softmax_rounded(z, delta):
    """p in bfloat16, while the rest is float32."""
    return {"z": stored(pull_softmax(wide(softmax(wide(z)).astype(BFLOAT16)), wide(delta)), z)}


@SOFTMAX.bug("probabilities rounded to float8", in_float64=False)
def softmax_rounded_to_float8(z, delta):
    """p in float8 (e4m3), while the rest is bfloat16."""
    p = softmax(wide(z)).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return {"z": stored(pull_softmax(p, wide(delta)), z)}


@SOFTMAX.bug("one row left at zero")
def softmax_zero_row(z, delta):
    """The last row is not written into a buffer of zeros."""
    dz = softmax_once(z, delta)["z"]
    dz[-1] = 0
    return {"z": dz}


def triangle(n):
    """Entries that a causal mask keeps."""
    return np.tril(np.ones((n, n), bool))


def masked_forward(z):
    """Causal softmax of square rows."""
    return stored(softmax(np.where(triangle(z.shape[-1]), wide(z), -np.inf)), z), z


def masked_reference(z):
    """The same in torch."""
    return torch.softmax(z.masked_fill(~torch.ones_like(z).tril().bool(), -torch.inf), -1)


MASKED = Kernel("causal softmax", masked_forward, masked_reference, {"z": (60, 60)})
MASKED.torch_backward(*HALF)


@MASKED.right("one rounding", *HALF)
def masked_once(z, delta):
    """Softmax again in float32, with the mask."""
    p = softmax(np.where(triangle(z.shape[-1]), wide(z), -np.inf))
    return {"z": stored(pull_softmax(p, wide(delta)), z)}


@MASKED.bug("mask off by one", *HALF)
def masked_off_by_one(z, delta):
    """The backward masks the diagonal's right neighbour too late."""
    p = softmax(np.where(np.tril(np.ones(z.shape, bool), 1), wide(z), -np.inf))
    return {"z": stored(pull_softmax(p, wide(delta)), z)}


@MASKED.bug("no mask in the backward")
def masked_without_mask(z, delta):
    """Softmax over whole rows."""
    return {"z": stored(pull_softmax(softmax(wide(z)), wide(delta)), z)}


def log_sum_exp(z):
    """log Σ e^z over the last axis."""
    m = z.max(axis=-1)
    return m + np.log(np.exp(z - m[:, None]).sum(axis=-1))


def entropy_forward(z, target):
    """The loss of each row; keep the input and log Σ e^z in float32."""
    z32 = wide(z)
    lse = log_sum_exp(z32)
    return stored(lse - z32[np.arange(len(target)), target], z), (z, target, lse)


def entropy_reference(z, target):
    """Cross-entropy in torch, a loss for each row."""
    return torch.nn.functional.cross_entropy(z, target, reduction="none")


def logits(rng):
    """Logits, and a class for each row."""
    return {"z": 2 * rng.standard_normal(GRID), "target": rng.integers(0, GRID[1], GRID[0])}


def confident(rng):
    """Logits that give the target a probability of about 0.99."""
    drawn = logits(rng)
    drawn["z"][np.arange(GRID[0]), drawn["target"]] += 12
    return drawn


ENTROPY = Kernel("cross-entropy", entropy_forward, entropy_reference, logits)
ENTROPY.torch_backward(*HALF)


def one_hot(target, like):
    """1 at the target of each row."""
    return (np.arange(like.shape[-1]) == target[:, None]).astype(like.dtype)


@ENTROPY.right("one rounding", *ALL)
def entropy_once(cache, delta):
    """δ (e^(z − lse) − 1 at the target)."""
    z, target, lse = cache
    p = np.exp(wide(z) - lse[:, None])
    return {"z": stored((p - one_hot(target, p)) * wide(delta)[:, None], z)}


@ENTROPY.right("confident logits", *HALF, draw=confident)
def entropy_of_confident_logits(cache, delta):
    """The same, where p − 1 cancels; −Σ of the others keeps the digits of float32."""
    z, target, lse = cache
    hot = np.arange(z.shape[-1]) == target[:, None]
    p = np.exp(wide(z) - lse[:, None])
    others = np.where(hot, 0, p).sum(axis=-1, keepdims=True)
    return {"z": stored(np.where(hot, -others, p) * wide(delta)[:, None], z)}


@ENTROPY.right("in place, blocks of 64", *HALF)
def entropy_in_blocks(cache, delta):
    """Write over a copy of the logits, block by block, then subtract at the target."""
    z, target, lse = cache
    dz = wide(z)
    for tile in tiles(z.shape[1], 64):
        dz[:, tile] = np.exp(dz[:, tile] - lse[:, None])
    dz[np.arange(len(target)), target] -= 1
    return {"z": stored(dz * wide(delta)[:, None], z)}


@ENTROPY.bug("bfloat16(p) - 1 on confident logits", draw=confident)
def entropy_rounded_probability(cache, delta):
    """p is stored before 1 is subtracted."""
    z, target, lse = cache
    p = stored(np.exp(wide(z) - lse[:, None]), z)
    return {"z": stored((wide(p) - one_hot(target, wide(p))) * wide(delta)[:, None], z)}


@ENTROPY.bug("loss scale forgotten", *ALL)
def entropy_unscaled(cache, delta):
    """δ is taken as 1."""
    return entropy_once(cache, np.ones_like(delta))


@ENTROPY.bug("target off by one")
def entropy_next_target(cache, delta):
    """1 is subtracted one column too far."""
    z, target, lse = cache
    return entropy_once((z, (target + 1) % z.shape[-1], lse), delta)


@ENTROPY.bug("divided by the number of rows")
def entropy_mean(cache, delta):
    """A mean, where the losses of rows are not averaged."""
    return {"z": stored(wide(entropy_once(cache, delta)["z"]) / len(delta), delta)}


@ENTROPY.bug(
    "exponentials overflow in float16", "float16", draw=lambda rng: {**logits(rng), "z": 12 + logits(rng)["z"]}
)
def entropy_overflow(cache, delta):
    """e^z in the stored dtype, without subtracting the maximum."""
    z, target, _ = cache
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(z)
        p = wide(e) / wide(e).sum(axis=-1, keepdims=True)
    return {"z": stored((p - one_hot(target, p)) * wide(delta)[:, None], z)}


@ENTROPY.bug("gradient x 1.2", "float32", "bfloat16")
def entropy_twenty_percent(cache, delta):
    """Off by 20 %."""
    return {"z": stored(1.2 * wide(entropy_once(cache, delta)["z"]), delta)}
