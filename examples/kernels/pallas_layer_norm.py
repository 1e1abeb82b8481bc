"""Layer norm in Pallas, as a jax.custom_vjp: a tile of rows for each program, interpreted where there is no GPU.

python examples/kernels/pallas_layer_norm.py
"""

import functools

import jax
import jax.numpy as jnp
import torch
from jax.experimental import pallas as pl
from verdicts import show, stored

import oracles

EPS = 1e-5
ROWS = 4  # of one program
INTERPRET = jax.default_backend() == "cpu"


def parts(x):
    """(x − mean) / deviation and 1 / deviation of a tile, in float32."""
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt((centred * centred).mean(axis=-1, keepdims=True) + EPS)
    return centred * inverse, inverse


def forward_kernel(x, gain, bias, y):
    """y = h gain + bias."""
    h, _ = parts(x[...].astype(jnp.float32))
    y[...] = (h * gain[...].astype(jnp.float32) + bias[...].astype(jnp.float32)).astype(y.dtype)


def backward_kernel(x, gain, dy, dx, partial, *, mistake):
    """dx = inverse (g − mean g − h mean(g h)); the tile's part of Σ dy h and of Σ dy."""
    h, inverse = parts(x[...].astype(jnp.float32))
    d = dy[...].astype(jnp.float32)
    g = d * gain[...].astype(jnp.float32)
    mean = 0 if mistake == "mean" else g.mean(axis=-1, keepdims=True)
    pulled = g - mean - h * (g * h).mean(axis=-1, keepdims=True)
    dx[...] = (pulled if mistake == "deviation" else inverse * pulled).astype(dx.dtype)
    partial[0, 0] = (d * h).sum(axis=0)
    partial[0, 1] = d.sum(axis=0)


def tile(columns):
    """Return the block of a program: some rows, all columns."""
    return pl.BlockSpec((ROWS, columns), lambda i: (i, 0))


def row(columns):
    """Return the block of what all programs read: the gain, the bias."""
    return pl.BlockSpec((columns,), lambda i: (0,))


def layer_norm_with(mistake):
    """Return a layer norm whose backward is right if the mistake is ""."""

    @jax.custom_vjp
    @jax.jit  # compiled once: Pallas would compile for each call
    def layer_norm(x, gain, bias):
        rows, n = x.shape
        return pl.pallas_call(
            forward_kernel,
            out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
            grid=(rows // ROWS,),
            in_specs=[tile(n), row(n), row(n)],
            out_specs=tile(n),
            interpret=INTERPRET,
        )(x, gain, bias)

    def fwd(x, gain, bias):
        return layer_norm(x, gain, bias), (x, gain, bias)

    @jax.jit
    def bwd(residuals, dy):
        x, gain, bias = residuals
        programs, n = x.shape[0] // ROWS, x.shape[1]
        dx, partial = pl.pallas_call(
            functools.partial(backward_kernel, mistake=mistake),
            out_shape=(jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct((programs, 2, n), jnp.float32)),
            grid=(programs,),
            in_specs=[tile(n), row(n), tile(n)],
            out_specs=(tile(n), pl.BlockSpec((1, 2, n), lambda i: (i, 0, 0))),
            interpret=INTERPRET,
        )(x, gain, dy)
        dgain, dbias = partial[0] if mistake == "first" else partial.sum(axis=0)
        return dx, dgain.astype(gain.dtype), dbias.astype(bias.dtype)

    layer_norm.defvjp(fwd, bwd)
    return layer_norm


def reference(x, gain, bias):
    """The same in torch."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, bias, eps=EPS)


def subjects():
    """Return the right kernel and three wrong ones."""
    names = {"": "right", "mean": "mean forgotten", "deviation": "deviation forgotten", "first": "first tile alone"}
    return [oracles.jax_function(layer_norm_with(m), name=f"layer norm, {name}") for m, name in names.items()]


def primals():
    """Draw 12 rows in bfloat16: three tiles."""
    return stored(torch.bfloat16, x=(12, 40), gain=(40,), bias=(40,))


if __name__ == "__main__":
    show(subjects(), primals(), reference)
