"""Reference cases of the pointwise activations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from hypothesis import strategies as st

from manual_bp import GELU, Identity, Layer, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import F, JaxArray, Tensor, jax, jnp, torch
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import real, rows, widths


def on_rows(draw: st.DrawFn, layer: Layer, reference: Reference) -> Case:
    """An activation on any number of rows of any width."""
    primals = {"z": real(draw(rows()), draw(widths()))}
    return reference.case(manual_layer(layer), primals, batched=("z",), kinks="declared")


def identity_torch(z: Tensor) -> Tensor:
    """The identity."""
    return z.clone()


def identity_jax(z: JaxArray) -> JaxArray:
    """The identity."""
    return z


IDENTITY_REFERENCE = Reference(identity_torch, identity_jax)


@oracle_for(Identity, reference=IDENTITY_REFERENCE)
def identity(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, Identity(), IDENTITY_REFERENCE)


def relu_torch(z: Tensor) -> Tensor:
    """The rectifier; both have ReLU'(0) = 0, as we have."""
    return torch.relu(z)


def relu_jax(z: JaxArray) -> JaxArray:
    """The rectifier; both have ReLU'(0) = 0, as we have."""
    return jax.nn.relu(z)


RELU_REFERENCE = Reference(relu_torch, relu_jax)


@oracle_for(ReLU, reference=RELU_REFERENCE)
def relu(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, ReLU(), RELU_REFERENCE)


def leaky_relu_options(layer: LeakyReLU) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"slope": layer.slope}


def leaky_relu_torch(z: Tensor, slope: float) -> Tensor:
    """torch's slope at 0 is the left one, as in manual_bp."""
    return F.leaky_relu(z, slope)


def leaky_relu_jax(z: JaxArray, slope: float) -> JaxArray:
    """Not jax.nn.leaky_relu, whose derivative at 0 is 1 where torch's and ours is the slope."""
    return jnp.where(z > 0, z, slope * z)


def leaky_relu_native_jax(z: JaxArray, slope: float) -> JaxArray:
    """JAX's own: the same function, another derivative at 0."""
    return jax.nn.leaky_relu(z, slope)


LEAKY_RELU_REFERENCE = Reference(
    leaky_relu_torch, leaky_relu_jax, options=leaky_relu_options, native_jax=leaky_relu_native_jax
)


@oracle_for(LeakyReLU, reference=LEAKY_RELU_REFERENCE)
def leaky_relu(draw: st.DrawFn) -> Case:
    """Any rows and widths; the default slope, none, one, a steep and a negative one."""
    layer = LeakyReLU(draw(st.sampled_from((0.01, 0.0, 1.0, 2.5, -0.5))))
    return on_rows(draw, layer, LEAKY_RELU_REFERENCE)


def prelu_torch(z: Tensor, slope: Tensor) -> Tensor:
    """torch's derivative at 0 is the slope, as in manual_bp."""
    return F.prelu(z, slope)


def prelu_jax(z: JaxArray, slope: JaxArray) -> JaxArray:
    """JAX has no such unit."""
    by_channel = slope if slope.shape[0] == 1 else slope.reshape(-1, *(1,) * (z.ndim - 2))
    return jnp.where(z > 0, z, by_channel * z)


PRELU_REFERENCE = Reference(prelu_torch, prelu_jax)


@oracle_for(PReLU, reference=PRELU_REFERENCE)
def prelu(draw: st.DrawFn) -> Case:
    """One slope for arrays of any rank, and one for each channel on axis 1."""
    shape = (draw(rows()), *(draw(widths(4)) for _ in range(draw(st.integers(0, 3)))))
    layer = PReLU(draw(st.sampled_from((1, *shape[1:2]))))
    return PRELU_REFERENCE.case(
        manual_layer(layer),
        {"z": real(*shape), "slope": real(layer.channels)},
        batched=("z",),
        kinks="declared",
    )


def tanh_torch(z: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return torch.tanh(z)


def tanh_jax(z: JaxArray) -> JaxArray:
    """The hyperbolic tangent."""
    return jnp.tanh(z)


TANH_REFERENCE = Reference(tanh_torch, tanh_jax)


@oracle_for(Tanh, reference=TANH_REFERENCE)
def tanh(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, Tanh(), TANH_REFERENCE)


def sigmoid_torch(z: Tensor) -> Tensor:
    """The logistic function."""
    return torch.sigmoid(z)


def sigmoid_jax(z: JaxArray) -> JaxArray:
    """The logistic function."""
    return jax.nn.sigmoid(z)


SIGMOID_REFERENCE = Reference(sigmoid_torch, sigmoid_jax)


@oracle_for(Sigmoid, reference=SIGMOID_REFERENCE)
def sigmoid(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, Sigmoid(), SIGMOID_REFERENCE)


def silu_torch(z: Tensor) -> Tensor:
    """The sigmoid linear unit."""
    return F.silu(z)


def silu_jax(z: JaxArray) -> JaxArray:
    """The sigmoid linear unit."""
    return jax.nn.silu(z)


SILU_REFERENCE = Reference(silu_torch, silu_jax)


@oracle_for(SiLU, reference=SILU_REFERENCE)
def silu(draw: st.DrawFn) -> Case:
    """Any rows and widths."""
    return on_rows(draw, SiLU(), SILU_REFERENCE)


def softplus_options(layer: Softplus) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"beta": layer.beta, "threshold": layer.threshold}


def softplus_torch(z: Tensor, beta: float, threshold: float | None) -> Tensor:
    """torch's softplus always has a threshold, and overflows with an infinite one."""
    if threshold is None:
        return torch.logaddexp(torch.zeros_like(z), beta * z) / beta
    return torch.nn.functional.softplus(z, beta, threshold)


def softplus_jax(z: JaxArray, beta: float, threshold: float | None) -> JaxArray:
    """JAX's softplus has neither β nor a threshold."""
    y = jax.nn.softplus(beta * z) / beta
    return y if threshold is None else jnp.where(beta * z > threshold, z, y)


SOFTPLUS_REFERENCE = Reference(softplus_torch, softplus_jax, options=softplus_options)


@oracle_for(Softplus, reference=SOFTPLUS_REFERENCE)
def softplus(draw: st.DrawFn) -> Case:
    """Any rows and widths; several β, no threshold, torch's and a low one."""
    layer = Softplus(draw(st.sampled_from((1.0, 0.5, 3.0, 100.0))), draw(st.sampled_from((None, 20.0, 3.5, -1.5))))
    return on_rows(draw, layer, SOFTPLUS_REFERENCE)


def gelu_options(layer: GELU) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"approximate": layer.approximate}


def gelu_torch(z: Tensor, approximate: str) -> Tensor:
    """By erfc: torch's own gelu has 1 + erf in it, which is 0 from z = −9 on."""
    if approximate == "tanh":
        return torch.nn.functional.gelu(z, approximate="tanh")
    return z * torch.erfc(-z * 0.5**0.5) / 2


def gelu_jax(z: JaxArray, approximate: str) -> JaxArray:
    """JAX's own default is the approximation."""
    return jax.nn.gelu(z, approximate=approximate == "tanh")


GELU_REFERENCE = Reference(gelu_torch, gelu_jax, options=gelu_options)


@oracle_for(GELU, reference=GELU_REFERENCE)
def gelu(draw: st.DrawFn) -> Case:
    """Any rows and widths, both forms."""
    layer = GELU(draw(st.sampled_from(("none", "tanh"))))
    return on_rows(draw, layer, GELU_REFERENCE)
