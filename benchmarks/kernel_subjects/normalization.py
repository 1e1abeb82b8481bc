"""Normalisation kernels: RMSNorm, RMSNorm of a residual sum, layer norm."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.kernel_subjects.kernel import ALL, HALF, Kernel, normal, stored, summed_in_store, tiles, wide

EPS = 1e-5
SHAPES = {"x": (70, 96), "gain": (96,)}  # tiles of 32 rows: the last one has 6


def rms(x):
    """Return the rows divided by their root mean square, and its inverse."""
    inverse = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS)
    return x * inverse, inverse


def rms_forward(x, gain):
    """Keep the inputs and 1 / rms in float32."""
    h, inverse = rms(wide(x))
    return stored(h * wide(gain), x), (x, gain, inverse)


def rms_reference(x, gain):
    """RMSNorm in torch."""
    return torch.nn.functional.rms_norm(x, x.shape[-1:], gain, eps=EPS)


def rms_dx(x, gain, inverse, delta):
    """inverse · (g − h · mean(g h)) with g = δ gain."""
    h, g = x * inverse, delta * gain
    return inverse * (g - h * (g * h).mean(axis=-1, keepdims=True))


RMS = Kernel("rms norm", rms_forward, rms_reference, SHAPES)
RMS.torch_backward(*HALF)


@RMS.right("one rounding", *ALL)
def rms_once(cache, delta):
    """Everything in float32."""
    x, gain, inverse = cache
    d, x32 = wide(delta), wide(x)
    return {
        "x": stored(rms_dx(x32, wide(gain), inverse, d), x),
        "gain": stored((d * x32 * inverse).sum(axis=0), gain),
    }


@RMS.right("partial sums of 32 rows, last tile first", *HALF)
def rms_tiled(cache, delta):
    """Each tile adds its part of the gain's gradient in float32."""
    x, gain, inverse = cache
    d, x32, total = wide(delta), wide(x), 0
    for tile in reversed(tiles(len(x), 32)):
        total = total + (d[tile] * x32[tile] * inverse[tile]).sum(axis=0)
    return {"x": stored(rms_dx(x32, wide(gain), inverse, d), x), "gain": stored(total, gain)}


def rms_keeping_h(x, gain):
    """Keep x / rms(x) in the dtype of x."""
    h, inverse = rms(wide(x))
    return stored(h * wide(gain), x), (stored(h, x), gain, inverse)


@RMS.right("from the stored x / rms", *HALF, forward=rms_keeping_h, once=False)
def rms_from_stored(cache, delta):
    """Use h as it was rounded."""
    h, gain, inverse = cache
    h32, d = wide(h), wide(delta)
    g = d * wide(gain)
    dx = inverse * (g - h32 * (g * h32).mean(axis=-1, keepdims=True))
    return {"x": stored(dx, h), "gain": stored((d * h32).sum(axis=0), gain)}


@RMS.bug("term of the mean forgotten", *HALF)
def rms_missing_term(cache, delta):
    """dx = inverse · g."""
    x, gain, inverse = cache
    d = wide(delta)
    return {
        "x": stored(inverse * d * wide(gain), x),
        "gain": stored((d * wide(x) * inverse).sum(axis=0), gain),
    }


@RMS.bug("sum for the mean")
def rms_sum_for_mean(cache, delta):
    """The inner mean is not divided by the number of columns."""
    x, gain, inverse = cache
    d, h = wide(delta), wide(x) * inverse
    g = d * wide(gain)
    dx = inverse * (g - h * (g * h).sum(axis=-1, keepdims=True))
    return {"x": stored(dx, x), "gain": stored((d * h).sum(axis=0), gain)}


@RMS.bug("mean over the padded block")
def rms_padded_mean(cache, delta):
    """The mean divides by 128, the block size, instead of 96."""
    x, gain, inverse = cache
    d, h = wide(delta), wide(x) * inverse
    g = d * wide(gain)
    dx = inverse * (g - h * (g * h).sum(axis=-1, keepdims=True) / 128)
    return {"x": stored(dx, x), "gain": stored((d * h).sum(axis=0), gain)}


@RMS.bug("1 / rms of the previous row")
def rms_stale(cache, delta):
    """Row i uses what was loaded for row i − 1."""
    x, gain, inverse = cache
    return rms_once((x, gain, np.roll(inverse, 1, axis=0)), delta)


@RMS.bug("last tile of rows dropped from the gain", "float32", "bfloat16")
def rms_last_tile(cache, delta):
    """The gain's gradient adds up whole tiles of 32 rows."""
    x, gain, inverse = cache
    whole = len(x) // 32 * 32
    d, x32 = wide(delta), wide(x)
    return {
        "x": stored(rms_dx(x32, wide(gain), inverse, d), x),
        "gain": stored((d * x32 * inverse)[:whole].sum(axis=0), gain),
    }


@RMS.bug("gain's gradient x 1.05")
def rms_five_percent(cache, delta):
    """Off by 5 %."""
    right = rms_once(cache, delta)
    return {**right, "gain": stored(1.05 * wide(right["gain"]), right["gain"])}


@RMS.bug("gain accumulated in the stored dtype", *HALF, draw={"x": (600, 16), "gain": (16,)})
def rms_gain_in_store(cache, delta):
    """600 rows are added up in bfloat16."""
    x, gain, inverse = cache
    d, x32 = wide(delta), wide(x)
    terms = stored(d * x32 * inverse, gain)
    return {"x": stored(rms_dx(x32, wide(gain), inverse, d), x), "gain": summed_in_store(terms)}


def large(rng):
    """Values whose squares overflow float16."""
    return {"x": 100 + 200 * rng.random((6, 96)), "gain": rng.standard_normal(96)}


@RMS.right("large values", "float16", draw=large)
def rms_of_large_values(cache, delta):
    """Squares in float32."""
    return rms_once(cache, delta)


@RMS.bug("squares overflow in float16", "float16", draw=large)
def rms_overflow(cache, delta):
    """The sum of squares, computed again, is kept in the stored dtype."""
    x, gain, _ = cache
    with np.errstate(over="ignore"):
        mean = wide((x * x).sum(axis=-1, keepdims=True, dtype=x.dtype)) / x.shape[-1]
    return rms_once((x, gain, 1 / np.sqrt(mean + EPS)), delta)


def small(rng):
    """Values as small as the square root of eps."""
    return {"x": 0.003 * rng.standard_normal((20, 96)), "gain": rng.standard_normal(96)}


@RMS.right("small values", *HALF, draw=small)
def rms_of_small_values(cache, delta):
    """The same, where eps counts."""
    return rms_once(cache, delta)


@RMS.bug("eps outside of the root", draw=small)
def rms_eps_outside(cache, delta):
    """1 / (rms + eps) in the backward."""
    x, gain, _ = cache
    inverse = 1 / (np.sqrt((wide(x) * wide(x)).mean(axis=-1, keepdims=True)) + EPS)
    return rms_once((x, gain, inverse), delta)


def residual_forward(x, residual, gain):
    """RMSNorm of x + residual; the sum is the second output."""
    s = wide(x) + wide(residual)
    h, inverse = rms(s)
    return (stored(h * wide(gain), x), stored(s, x)), (x, residual, gain, inverse)


def residual_reference(x, residual, gain):
    """The same in torch."""
    return rms_reference(x + residual, gain), x + residual


RESIDUAL = Kernel(
    "rms norm of a residual sum",
    residual_forward,
    residual_reference,
    normal(x=(40, 96), residual=(40, 96), gain=(96,)),
)


@RESIDUAL.right("one rounding", *HALF)
def residual_once(cache, deltas):
    """One gradient for x and residual: that of the norm, plus the cotangent of the sum."""
    x, residual, gain, inverse = cache
    s, d = wide(x) + wide(residual), wide(deltas[0])
    dx = stored(rms_dx(s, wide(gain), inverse, d) + wide(deltas[1]), x)
    return {"x": dx, "residual": dx.copy(), "gain": stored((d * s * inverse).sum(axis=0), gain)}


@RESIDUAL.bug("cotangent of the sum forgotten")
def residual_forgotten(cache, deltas):
    """The second output's cotangent is not added."""
    return residual_once(cache, (deltas[0], 0 * deltas[1]))


@RESIDUAL.bug("residual gets the cotangent of the sum alone")
def residual_skips_norm(cache, deltas):
    """The gradient through the norm does not reach the residual."""
    return {**residual_once(cache, deltas), "residual": deltas[1].copy()}


def layer_parts(x):
    """(x − mean) / deviation, and 1 / deviation."""
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPS)
    return centred * inverse, inverse


def layer_forward(x, gain, bias):
    """Layer norm; the backward computes its parts again."""
    h, _ = layer_parts(wide(x))
    return stored(h * wide(gain) + wide(bias), x), (x, gain, bias)


def layer_reference(x, gain, bias):
    """Layer norm in torch."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, bias, eps=EPS)


LAYER = Kernel("layer norm", layer_forward, layer_reference, {"x": (70, 96), "gain": (96,), "bias": (96,)})
LAYER.torch_backward(*HALF)


def layer_gradients(h, inverse, gain, bias, delta, dtype_of):
    """All three gradients, from h and 1 / deviation in float32."""
    d = wide(delta)
    g = d * wide(gain)
    dx = inverse * (g - g.mean(axis=-1, keepdims=True) - h * (g * h).mean(axis=-1, keepdims=True))
    return {
        "x": stored(dx, dtype_of),
        "gain": stored((d * h).sum(axis=0), gain),
        "bias": stored(d.sum(axis=0), bias),
    }


@LAYER.right("one rounding", *ALL)
def layer_once(cache, delta):
    """Everything in float32."""
    x, gain, bias = cache
    return layer_gradients(*layer_parts(wide(x)), gain, bias, delta, x)


@LAYER.right("mean and deviation merged over blocks of columns", *HALF)
def layer_merged(cache, delta):
    """Means and squared deviations of blocks of 40 columns, merged one after the other."""
    x, gain, bias = cache
    x32, count, mean, squares = wide(x), 0, 0, 0
    for tile in tiles(x.shape[1], 40):
        part, n = x32[:, tile], tile.stop - tile.start
        part_mean = part.mean(axis=-1, keepdims=True)
        shift = part_mean - mean
        squares = squares + ((part - part_mean) ** 2).sum(axis=-1, keepdims=True) + shift**2 * (count * n / (count + n))
        mean, count = mean + shift * (n / (count + n)), count + n
    inverse = 1 / np.sqrt(squares / count + EPS)
    return layer_gradients((x32 - mean) * inverse, inverse, gain, bias, delta, x)


@LAYER.bug("first mean forgotten", *HALF)
def layer_missing_mean(cache, delta):
    """mean(g) is not subtracted."""
    x, gain, _ = cache
    h, inverse = layer_parts(wide(x))
    g = wide(delta) * wide(gain)
    dx = inverse * (g - h * (g * h).mean(axis=-1, keepdims=True))
    return {**layer_once(cache, delta), "x": stored(dx, x)}


@LAYER.bug("deviation over n - 1", "float32", "bfloat16")
def layer_unbiased(cache, delta):
    """The backward divides the squares by 95 instead of 96."""
    x, gain, bias = cache
    centred = wide(x) - wide(x).mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt((centred * centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1) + EPS)
    return layer_gradients(centred * inverse, inverse, gain, bias, delta, x)


@LAYER.bug("x for h in the gain's gradient")
def layer_raw_input(cache, delta):
    """The gain's gradient adds up δ x."""
    x, gain, _ = cache
    return {**layer_once(cache, delta), "gain": stored((wide(delta) * wide(x)).sum(axis=0), gain)}


@LAYER.bug("bias accumulated in the stored dtype", *HALF, draw={"x": (600, 16), "gain": (16,), "bias": (16,)})
def layer_bias_in_store(cache, delta):
    """600 rows are added up in bfloat16."""
    return {**layer_once(cache, delta), "bias": summed_in_store(delta)}
