"""Pairs whose tolerance is that of a difference of equal numbers, at so many entries that any coincidence happens."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import jax_vjp, manual, torch_autograd
from oracles.lazy_modules import torch
from oracles.references.activations import tanh_jax, tanh_torch
from oracles.rule import Array, Cotangents, Rule
from planted_bugs.pairs import at_point

RNG = np.random.default_rng(27)
SATURATED = {"z": RNG.choice((-1.0, 1.0), (128, 128)) * RNG.uniform(20, 40, (128, 128))}


def tanh(error: float = 0.0) -> Rule:
    """tanh with its gradient 4 δ e^(−2|z|) / (1 + e^(−2|z|))², off by so many δ; the references compute 0."""

    def backward(z: Array, d: Array) -> Cotangents:
        e = np.exp(-2 * np.abs(z))
        return {"z": d * (4 * e / (1 + e) ** 2 + error)}

    return manual(lambda z: (np.tanh(z), z), backward, name="tanh")


for oracle in (torch_autograd(tanh_torch), jax_vjp(tanh_jax)):
    at_point(f"saturated_tanh_off_judged_by_{oracle.name}", tanh(1e-14), tanh(), SATURATED, [oracle])


def difference_torch(z: Any, p: Any, q: Any) -> Any:
    return z * (torch.exp(p) - torch.exp(q))


def difference_jax(z: Any, p: Any, q: Any) -> Any:
    import jax.numpy as jnp

    return z * (jnp.exp(p) - jnp.exp(q))


def difference(error: float = 0.0) -> Rule:
    """z (e^p − e^q) without the cancellation of the references, ∂L/∂z off by so many δ."""

    def forward(z: Array, p: Array, q: Array) -> tuple[Array, tuple[Array, ...]]:
        return z * (np.expm1(p) - np.expm1(q)), (z, p, q)

    def backward(cache: tuple[Array, ...], d: Array) -> Cotangents:
        z, p, q = cache
        return {"z": d * (np.expm1(p) - np.expm1(q) + error), "p": d * z * np.exp(p), "q": -d * z * np.exp(q)}

    return manual(forward, backward, name="difference of exponentials")


NEARLY_ZERO = {name: 1e-20 * RNG.standard_normal((256, 256)) for name in ("p", "q")}
for oracle in (torch_autograd(difference_torch), jax_vjp(difference_jax)):
    at_point(
        f"cancelled_difference_off_judged_by_{oracle.name}",
        difference(1e-14),
        difference(),
        {"z": RNG.standard_normal((256, 256)), **NEARLY_ZERO},
        [oracle],
    )
