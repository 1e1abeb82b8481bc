"""Check a jax.custom_vjp: its own fwd and bwd, and jax.vjp of it with and without jax.jit.

python examples/bring_a_custom_vjp.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import oracles


@jax.custom_vjp
def log_sum_exp(z):
    """log Σ exp z over the last axis."""
    m = z.max(axis=-1, keepdims=True)
    return jnp.log(jnp.exp(z - m).sum(axis=-1)) + m[..., 0]


def fwd(z):
    """Keep the input and the output."""
    y = log_sum_exp(z)
    return y, (z, y)


def bwd(residuals, delta):
    """Return delta · softmax z."""
    z, y = residuals
    return (delta[..., None] * jnp.exp(z - y[..., None]),)


def delta_of_ones(residuals, delta):
    """Ignore delta: right only for the sum of all outputs."""
    return bwd(residuals, jnp.ones_like(delta))


primals = {"z": np.random.default_rng(0).standard_normal((3, 4))}
against = [oracles.torch_autograd(lambda z: z.logsumexp(-1)), oracles.jax_vjp(lambda z: jax.nn.logsumexp(z, axis=-1))]
log_sum_exp.defvjp(fwd, bwd)
print(oracles.check(oracles.jax_function(log_sum_exp), primals, against))
log_sum_exp.defvjp(fwd, delta_of_ones)
try:
    oracles.check(oracles.jax_function(log_sum_exp, name="delta of ones"), primals, against)
except oracles.Disagreement as disagreement:
    print(disagreement)
