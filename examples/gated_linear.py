"""A layer of your own, registered: this one file works with every command, and with pytest.

    oracles verify --cases examples/gated_linear.py          every property, a table
    pytest --oracles-cases=examples/gated_linear.py          the same as tests, one for each property
    oracles check examples/gated_linear.py:GatedLinear       output and gradients alone
    python examples/gated_linear.py                          one point, by hand

An installed package announces its module as an entry point; `oracles verify` then knows its layers:

    [project.entry-points."oracles.cases"]
    my_layers = "my_package.gated_linear"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import oracles
from oracles.strategies import real, rows, widths

Tensor: TypeAlias = Any  # of torch or of JAX, neither of which this file imports


@dataclass(frozen=True)
class GatedLinear:
    """y = zW ⊙ silu(zV), where silu(g) = g σ(g).

    With a = zW and g = zV:

    δ_a = δ ⊙ silu(g),  δ_g = δ ⊙ a ⊙ silu'(g),  silu'(g) = σ(g) (1 + g (1 − σ(g)))
    ∂L/∂W = zᵀ δ_a,  ∂L/∂V = zᵀ δ_g,  ∂L/∂z = δ_a Wᵀ + δ_g Vᵀ

    Source: Shazeer 2020, "GLU Variants Improve Transformer", SwiGLU without biases.
    """

    n_in: int
    n_out: int

    def init(self, rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, np.ndarray]:
        """Draw W and V of variance 1/n_in."""
        shape = self.n_in, self.n_out
        return {name: (rng.standard_normal(shape) / self.n_in**0.5).astype(dtype) for name in ("W", "V")}

    def forward(self, params: dict[str, np.ndarray], z: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return y."""
        W, V = params["W"], params["V"]
        a, g = z @ W, z @ V
        e = np.exp(-np.abs(g))  # of the side that does not overflow
        gate, rest = np.where(g >= 0, 1, e) / (1 + e), np.where(g >= 0, e, 1) / (1 + e)  # σ(g), and 1 − σ(g) in full
        return a * g * gate, (z, W, V, a, g, gate, rest)

    def backward(self, cache: Any, delta: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return ∂L/∂z and ∂L/∂W, ∂L/∂V."""
        z, W, V, a, g, gate, rest = cache
        delta_a = delta * g * gate
        delta_g = delta * a * gate * (1 + g * rest)
        return delta_a @ W.T + delta_g @ V.T, {"W": z.T @ delta_a, "V": z.T @ delta_g}


@oracles.oracle_for(GatedLinear)
def gated_linear(draw: Any) -> oracles.Case:
    """Any rows and widths."""
    n_rows, layer = draw(rows()), GatedLinear(draw(widths(5)), draw(widths(5)))
    shape = layer.n_in, layer.n_out
    primals = {"z": real(n_rows, layer.n_in), "W": real(*shape), "V": real(*shape)}
    subject = oracles.manual_layer(layer)
    return oracles.Case(subject, primals, torch=torch_reference, jax=jax_reference, batched=("z",))


def torch_reference(z: Tensor, W: Tensor, V: Tensor) -> Tensor:
    """The primal only, as one writes it in torch."""
    from torch.nn.functional import silu

    return z @ W * silu(z @ V)


def jax_reference(z: Tensor, W: Tensor, V: Tensor) -> Tensor:
    """The primal only, as one writes it in JAX."""
    import jax

    return z @ W * jax.nn.silu(z @ V)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    layer = GatedLinear(3, 2)
    result = oracles.check(
        oracles.manual_layer(layer),
        {"z": rng.standard_normal((4, 3)), **layer.init(rng)},
        against=[oracles.torch_autograd(torch_reference), oracles.jax_vjp(jax_reference)],
    )
    print(result)
