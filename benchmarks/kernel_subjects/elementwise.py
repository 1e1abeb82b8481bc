"""Elementwise kernels: scale, sigmoid, SiLU, GELU, SwiGLU, dropout with a stored mask."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.kernel_subjects.kernel import ALL, HALF, Kernel, stored, tiles, wide

GRID = (24, 130)  # rows of columns; the tiles below are 64 wide, so that the last one has two columns


def sigmoid(z):
    """1 / (1 + e^-z), without overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


SCALE = Kernel("scale", lambda z: (stored(wide(z) * 1.7, z), z), lambda z: z * 1.7, {"z": GRID})
SCALE.torch_backward(*HALF)


@SCALE.right("one rounding", *ALL)
def scale_once(z, delta):
    """Multiply in float32, round once."""
    return {"z": stored(wide(delta) * 1.7, z)}


@SCALE.bug("gradient x 1.05", *ALL)
def scale_five_percent(z, delta):
    """Off by 5 %."""
    return {"z": stored(wide(delta) * 1.7 * 1.05, z)}


@SCALE.bug("gradient x 1.2", *HALF)
def scale_twenty_percent(z, delta):
    """Off by 20 %."""
    return {"z": stored(wide(delta) * 1.7 * 1.2, z)}


@SCALE.bug("last tile not written")
def scale_last_tile(z, delta):
    """Only whole tiles of 64 columns are computed; the buffer was filled with zeros."""
    dz = np.zeros(z.shape, z.dtype)
    for tile in tiles(z.shape[1], 64):
        if tile.stop - tile.start == 64:
            dz[:, tile] = stored(wide(delta[:, tile]) * 1.7, z)
    return {"z": dz}


SIGMOID = Kernel("sigmoid", lambda z: (stored(sigmoid(wide(z)), z), z), lambda z: torch.sigmoid(z), {"z": GRID})
SIGMOID.torch_backward(*HALF)


@SIGMOID.right("one rounding", *HALF)
def sigmoid_once(z, delta):
    """Compute σ again in float32."""
    s = sigmoid(wide(z))
    return {"z": stored(wide(delta) * s * sigmoid(-wide(z)), z)}


def sigmoid_keeping_y(z):
    """Keep the stored output for the backward."""
    y = stored(sigmoid(wide(z)), z)
    return y, y


@SIGMOID.right("from the stored output", *HALF, forward=sigmoid_keeping_y, once=False)
def sigmoid_from_stored(y, delta):
    """δ y (1 − y) with the y that was rounded, as frameworks do."""
    return {"z": stored(wide(delta) * wide(y) * (1 - wide(y)), y)}


@SIGMOID.bug("1 - y forgotten")
def sigmoid_missing_factor(z, delta):
    """δ y."""
    return {"z": stored(wide(delta) * sigmoid(wide(z)), z)}


SILU = Kernel(
    "silu",
    lambda z: (stored(wide(z) * sigmoid(wide(z)), z), z),
    lambda z: torch.nn.functional.silu(z),
    {"z": GRID},
)
SILU.torch_backward(*HALF)


def silu_slope(z):
    """σ(z) (1 + z σ(−z))."""
    return sigmoid(z) * (1 + z * sigmoid(-z))


@SILU.right("one rounding", *ALL)
def silu_once(z, delta):
    """Everything in float32."""
    return {"z": stored(wide(delta) * silu_slope(wide(z)), z)}


@SILU.right("in tiles, backwards", *HALF)
def silu_tiled(z, delta):
    """Tiles of 64 columns, the last one first, into a buffer of NaN."""
    dz = np.full(z.shape, np.nan, z.dtype)
    for tile in reversed(tiles(z.shape[1], 64)):
        dz[:, tile] = stored(wide(delta[:, tile]) * silu_slope(wide(z[:, tile])), z)
    return {"z": dz}


@SILU.bug("second term forgotten", *HALF)
def silu_missing_term(z, delta):
    """δ σ(z): the derivative of σ is missing."""
    return {"z": stored(wide(delta) * sigmoid(wide(z)), z)}


@SILU.bug("gradient x 1.05")
def silu_five_percent(z, delta):
    """Off by 5 %."""
    return {"z": stored(1.05 * wide(delta) * silu_slope(wide(z)), z)}


@SILU.bug("a row of NaN")
def silu_unwritten_row(z, delta):
    """Row 7 is not written into a buffer of NaN."""
    dz = stored(wide(delta) * silu_slope(wide(z)), z)
    dz[7] = np.nan
    return {"z": dz}


ROOT = float(np.sqrt(2 / np.pi))


def gelu_parts(z):
    """The value, and the derivative, of GELU in its form with tanh."""
    t = np.tanh(ROOT * (z + 0.044715 * z * z * z))
    slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * ROOT * (1 + 3 * 0.044715 * z * z)
    return 0.5 * z * (1 + t), slope


GELU = Kernel(
    "gelu",
    lambda z: (stored(gelu_parts(wide(z))[0], z), z),
    lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
    {"z": GRID},
)
GELU.torch_backward(*HALF)


@GELU.right("one rounding", *ALL)
def gelu_once(z, delta):
    """Everything in float32."""
    return {"z": stored(wide(delta) * gelu_parts(wide(z))[1], z)}


@GELU.bug("3 of the cube forgotten", *HALF)
def gelu_cube(z, delta):
    """The inner derivative is 1 + 0.044715 z² instead of 1 + 3·0.044715 z²."""
    z32 = wide(z)
    t = np.tanh(ROOT * (z32 + 0.044715 * z32 * z32 * z32))
    slope = 0.5 * (1 + t) + 0.5 * z32 * (1 - t * t) * ROOT * (1 + 0.044715 * z32 * z32)
    return {"z": stored(wide(delta) * slope, z)}


@GELU.bug("derivative of the sigmoid form", "float32", "bfloat16")
def gelu_sigmoid_form(z, delta):
    """The derivative of z σ(1.702 z), another approximation."""
    z32 = wide(z)
    s = sigmoid(1.702 * z32)
    return {"z": stored(wide(delta) * (s + 1.702 * z32 * s * (1 - s)), z)}


def swiglu_forward(gate, up):
    """silu(gate) · up."""
    return stored(wide(gate) * sigmoid(wide(gate)) * wide(up), gate), (gate, up)


SWIGLU = Kernel(
    "swiglu", swiglu_forward, lambda gate, up: torch.nn.functional.silu(gate) * up, {"gate": GRID, "up": GRID}
)
SWIGLU.torch_backward(*HALF)


@SWIGLU.right("one rounding", *ALL)
def swiglu_once(cache, delta):
    """Everything in float32."""
    gate, up = cache
    g, d = wide(gate), wide(delta)
    return {"gate": stored(d * wide(up) * silu_slope(g), gate), "up": stored(d * g * sigmoid(g), up)}


@SWIGLU.right("silu(gate) rounded", *HALF, once=False)
def swiglu_rounded_silu(cache, delta):
    """silu(gate) is rounded before it is multiplied by δ, as a framework that stores it does."""
    gate, up = cache
    g, d = wide(gate), wide(delta)
    silu = wide(stored(g * sigmoid(g), gate))
    return {"gate": stored(d * wide(up) * silu_slope(g), gate), "up": stored(d * silu, up)}


@SWIGLU.bug("gate for silu(gate)")
def swiglu_gate(cache, delta):
    """dup = δ gate."""
    gate, up = cache
    g, d = wide(gate), wide(delta)
    return {"gate": stored(d * wide(up) * silu_slope(g), gate), "up": stored(d * g, up)}


@SWIGLU.bug("gradients written over inputs too early")
def swiglu_in_place(cache, delta):
    """dgate is written over gate, then dup is computed from it."""
    gate, up = (a.copy() for a in cache)
    d = wide(delta)
    gate[:] = stored(d * wide(up) * silu_slope(wide(gate)), gate)
    up[:] = stored(d * wide(gate) * sigmoid(wide(gate)), up)
    return {"gate": gate, "up": up}


def with_mask(rng):
    """Draw values and a mask that keeps three quarters of them."""
    return {"z": rng.standard_normal(GRID), "keep": rng.random(GRID) < 0.75}


DROPOUT = Kernel(
    "dropout",
    lambda z, keep: (stored(np.where(keep, wide(z) / 0.75, 0), z), (keep, z)),
    lambda z, keep: torch.where(keep, z / 0.75, torch.zeros((), dtype=z.dtype)),
    with_mask,
)
DROPOUT.torch_backward(*HALF)


@DROPOUT.right("one rounding", *HALF)
def dropout_once(cache, delta):
    """δ / 0.75 where kept."""
    keep, z = cache
    return {"z": stored(np.where(keep, wide(delta) / 0.75, 0), z)}


@DROPOUT.right("times the reciprocal", *HALF)
def dropout_reciprocal(cache, delta):
    """δ · (1 / 0.75), the factor in the registers' dtype."""
    keep, z = cache
    return {"z": stored(np.where(keep, wide(delta) * wide(delta).dtype.type(1 / 0.75), 0), z)}


@DROPOUT.bug("not divided by the share that is kept")
def dropout_unscaled(cache, delta):
    """δ where kept."""
    keep, z = cache
    return {"z": stored(np.where(keep, wide(delta), 0), z)}


@DROPOUT.bug("mask shifted by one")
def dropout_shifted(cache, delta):
    """The mask is read one column too far."""
    keep, z = cache
    return {"z": stored(np.where(np.roll(keep, 1, axis=1), wide(delta) / 0.75, 0), z)}
