"""One function of a tree of arrays, y = tanh((z W) ⊙ g + b), in every kind of tree and for every adapter; its bugs."""

from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

import oracles

Fields = namedtuple("Fields", "W g b")


@dataclass
class Plain:
    """A dataclass that nobody registers, with a number that is configuration."""

    W: Any
    g: Any
    b: Any
    slope: float = 1.0


@partial(jax.tree_util.register_dataclass, data_fields=["W", "g", "b"], meta_fields=["label"])
@dataclass(frozen=True)
class Registered:
    """A dataclass that is registered with JAX."""

    W: Any
    g: Any
    b: Any
    label: str = "affine"


class Form(NamedTuple):
    """A kind of tree: how it is made of W, g and b, how these are read, and what its leaves are called."""

    make: Any
    read: Any
    names: tuple[str, str, str]


def _fields(p):
    return p.W, p.g, p.b


FORMS = {
    "dict": Form(
        lambda W, g, b: {"W": W, "g": g, "b": b},
        lambda p: (p["W"], p["g"], p["b"]),
        ('params["W"]', 'params["g"]', 'params["b"]'),
    ),
    "list": Form(lambda *p: list(p), tuple, ("params[0]", "params[1]", "params[2]")),
    "tuple": Form(lambda *p: p, tuple, ("params[0]", "params[1]", "params[2]")),
    "namedtuple": Form(Fields, _fields, ("params.W", "params.g", "params.b")),
    "dataclass": Form(Plain, _fields, ("params.W", "params.g", "params.b")),
    "registered": Form(Registered, _fields, ("params.W", "params.g", "params.b")),
    "nested": Form(
        lambda W, g, b: {"layers": [{"W": W, "rate": None}, Fields(None, g, b)]},
        lambda p: (p["layers"][0]["W"], p["layers"][1].g, p["layers"][1].b),
        ('params["layers"][0]["W"]', 'params["layers"][1].g', 'params["layers"][1].b'),
    ),
}

# What is wrong with (dz, dW, dg, db), and which of W, g, b are refused for it.
BUGS = {
    "a transposed leaf": (lambda dz, dW, dg, db: (dz, dW.T, dg, db), (0,)),
    "swapped leaves of equal shape": (lambda dz, dW, dg, db: (dz, dW, db, dg), (1, 2)),
    "a doubled leaf": (lambda dz, dW, dg, db: (dz, dW, dg, 2 * db), (2,)),
    "a leaf of zeros": (lambda dz, dW, dg, db: (dz, dW, 0 * dg, db), (1,)),
    "the gradient of another leaf": (lambda dz, dW, dg, db: (dz, dW, db, db), (1,)),
}


def right(dz, dW, dg, db):
    return dz, dW, dg, db


def point(form, seed=0):
    rng = np.random.default_rng(seed)
    W, g, b, z = (rng.standard_normal(shape) for shape in ((2, 2), (2,), (2,), (3, 2)))
    return {"params": form.make(W, g, b), "z": z}


def value(xp, form, params, z):
    W, g, b = form.read(params)
    return xp.tanh((z @ W) * g + b)


def gradients(form, params, z, delta, y, change=right):
    """Return the gradients of params, in its structure, and of z."""
    W, g, _ = form.read(params)
    e = delta * (1 - y * y)
    dz, *of_params = change((e * g) @ W.T, z.T @ (e * g), (e * (z @ W)).sum(0), e.sum(0))
    return form.make(*of_params), dz


def torch_reference(form):
    return oracles.torch_autograd(lambda params, z: value(torch, form, params, z))


def jax_reference(form):
    return oracles.jax_vjp(lambda params, z: value(jnp, form, params, z))


def as_pair(form, change=right, arrays="numpy"):
    xp = {"numpy": np, "torch": torch, "jax": jnp}[arrays]

    def forward(params, z):
        y = value(xp, form, params, z)
        return y, (params, z, y)

    def backward(cache, delta):
        params, z, y = cache
        of_params, dz = gradients(form, params, z, delta, y, change)
        return {"params": of_params, "z": dz}

    return oracles.manual(forward, backward, arrays=arrays)


def as_tuple_pair(form, change=right):
    def backward(cache, delta):
        params, z, y = cache
        return gradients(form, params, z, delta, y, change)

    def forward(params, z):
        y = value(np, form, params, z)
        return y, (params, z, y)

    return oracles.manual(forward, backward)


def as_class(form, change=right):
    class Affine:
        def __init__(self):
            self.params = form.make(np.zeros((2, 2)), np.zeros(2), np.zeros(2))

        def forward(self, z):
            self.cache = z, value(np, form, self.params, z)
            return self.cache[1]

        def backward(self, delta):
            z, y = self.cache
            self.grads, dz = gradients(form, self.params, z, delta, y, change)
            return dz

    return oracles.stateful(Affine, params=["params"], grads={"params": "grads"})


def as_custom_vjp(form, change=right):
    @jax.custom_vjp
    def affine(params, z):
        return value(jnp, form, params, z)

    def fwd(params, z):
        y = value(jnp, form, params, z)
        return y, (params, z, y)

    def bwd(residuals, delta):
        params, z, y = residuals
        return gradients(form, params, z, delta, y, change)

    affine.defvjp(fwd, bwd)
    return oracles.jax_function(affine)


class Affine(torch.autograd.Function):
    """The function of W, g, b and z by themselves, with a bug."""

    @staticmethod
    def forward(ctx, change, W, g, b, z):
        y = torch.tanh((z @ W) * g + b)
        ctx.save_for_backward(W, g, b, z, y)
        ctx.change = change
        return y

    @staticmethod
    def backward(ctx, delta):
        W, g, b, z, y = ctx.saved_tensors
        (dW, dg, db), dz = gradients(FORMS["tuple"], (W, g, b), z, delta, y, ctx.change)
        return None, dW, dg, db, dz


def as_module(form, change=right):
    class Module(torch.nn.Module):
        def forward(self, params, z):
            return Affine.apply(change, *form.read(params), z)

    return oracles.torch_module(Module)


ADAPTERS = {
    "manual": as_pair,
    "manual in torch": partial(as_pair, arrays="torch"),
    "manual in jax": partial(as_pair, arrays="jax"),
    "manual with a tuple": as_tuple_pair,
    "stateful": as_class,
    "jax_function": as_custom_vjp,
    "torch_module": as_module,
}


def fits(adapter, kind):
    """Return whether a framework takes a kind of tree: JAX takes no dataclass that it does not know."""
    return not (kind == "dataclass" and adapter == "jax_function")
