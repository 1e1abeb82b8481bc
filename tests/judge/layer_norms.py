"""Layer norm in torch's and in JAX's own idiom, operation by operation."""


def layer_norm_torch(z, g):
    return (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * g


def layer_norm_jax(z, g):
    import jax.numpy as jnp

    return (z - z.mean(-1, keepdims=True)) / jnp.sqrt(z.var(-1, keepdims=True) + 1e-5) * g
