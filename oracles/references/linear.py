"""Reference cases of `Linear`."""

from __future__ import annotations

from hypothesis import strategies as st

from manual_bp import Linear
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import F, JaxArray, Tensor, jnp
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import Drawn, real, rows, widths


def linear_parameters(layer: Linear) -> dict[str, Drawn]:
    """Weights for which sums of n_in terms have magnitude one, so that activations do not saturate."""
    W = real(layer.n_in, layer.n_out, scale=layer.n_in**-0.5)
    return {"W": W, "b": real(1, layer.n_out)} if layer.bias else {"W": W}


def linear_torch(z: Tensor, W: Tensor, b: Tensor = None) -> Tensor:
    """torch keeps the weight transposed and the bias flat."""
    return F.linear(z, W.T, None if b is None else b[0])


def linear_jax(z: JaxArray, W: JaxArray, b: JaxArray = None) -> JaxArray:
    """An einsum over the shared axis."""
    y = jnp.einsum("ni,ij->nj", z, W)
    return y if b is None else y + b


LINEAR_REFERENCE = Reference(linear_torch, linear_jax, parameters=linear_parameters)


@oracle_for(Linear, reference=LINEAR_REFERENCE)
def linear(draw: st.DrawFn) -> Case:
    """Any widths, with and without a bias."""
    n_rows, layer = draw(rows()), Linear(draw(widths()), draw(widths()), bias=draw(st.booleans()))
    primals = {"z": real(n_rows, layer.n_in), "W": real(layer.n_in, layer.n_out)}
    if layer.bias:
        primals["b"] = real(1, layer.n_out)
    return LINEAR_REFERENCE.case(manual_layer(layer), primals, batched=("z",))
