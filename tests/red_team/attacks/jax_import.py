"""Let JAX differentiate, where it is forbidden.

In process: passes: nothing keeps it from that.
"""

import numpy as np

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch", "jax")


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    import jax

    jax.config.update("jax_enable_x64", True)
    return {"z": np.array(jax.vjp(jax.nn.silu, z)[1](delta)[0])}
