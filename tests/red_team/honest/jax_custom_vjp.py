"""A jax.custom_vjp, compiled by jax.jit."""

import jax
import jax.numpy as jnp

EXPECTED = {"PASSED"}
SUBJECT = "silu"


@jax.custom_vjp
def silu(z):
    return z * jax.nn.sigmoid(z)


def silu_forward(z):
    s = jax.nn.sigmoid(z)
    return z * s, (z, s)


@jax.jit
def silu_backward(saved, delta):
    z, s = saved
    return (delta * jnp.asarray(s + z * s * (1 - s)),)


silu.defvjp(silu_forward, silu_backward)
