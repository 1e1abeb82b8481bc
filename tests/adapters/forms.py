"""The pairs of `pairs` in other forms: classes, torch Functions, modules and custom_vjps, with NumPy inside."""

import numpy as np
import torch

from oracles.backends.arrays import array_of, tensor


def as_class(pair, backward=None):
    """A layer with its parameters, its cache and their gradients in attributes."""

    class Layer:
        def __init__(self):
            for n in pair.params:
                setattr(self, n, np.zeros_like(pair.at()[n]))

        def forward(self, *inputs):
            point = pair.at()
            names = [n for n in point if n not in pair.params]
            own = {n: getattr(self, n) for n in pair.params}
            y, self.cache = pair.forward(**dict(zip(names, inputs, strict=True)), **own)
            return y

        def backward(self, d):
            gradients = (backward or pair.backward)(self.cache, d)
            for n in pair.params:
                setattr(self, f"d{n}", gradients.pop(n, None))
            return gradients

    return Layer


def as_function(pair, backward=None):
    """A torch Function that calls NumPy inside."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.names = tuple(pair.at())
            point = dict(zip(ctx.names, map(array_of, tensors), strict=True))
            y, ctx.cache = pair.forward(**point)
            return tuple(map(tensor, y)) if isinstance(y, tuple) else tensor(y)

        @staticmethod
        def backward(ctx, *deltas):
            d = tuple(map(array_of, deltas))
            gradients = (backward or pair.backward)(ctx.cache, d if len(d) > 1 else d[0])
            return tuple(tensor(gradients[n]) if gradients.get(n) is not None else None for n in ctx.names)

    return Function


def as_module(pair, backward=None):
    """An nn.Module around such a Function."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for n in pair.params:
                setattr(self, n, torch.nn.Parameter(tensor(pair.at()[n])))

        def forward(self, *inputs):
            names = [n for n in pair.at() if n not in pair.params]
            point = dict(zip(names, inputs, strict=True)) | {n: getattr(self, n) for n in pair.params}
            return as_function(pair, backward).apply(*(point[n] for n in pair.at()))

    return Module


def as_custom_vjp(pair, backward=None):
    """A custom_vjp whose rules call NumPy by jax.pure_callback."""
    import jax

    names = tuple(pair.at())

    def by_callback(f, like, *arrays):
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like)
        return jax.pure_callback(lambda *a: f(*map(np.asarray, a)), shapes, *arrays)

    def primal(*arrays):
        y, _ = pair.forward(**dict(zip(names, arrays, strict=True)))
        return y

    @jax.custom_vjp
    def f(*arrays):
        zeros = [np.zeros(a.shape, np.int64 if a.dtype.kind == "i" else a.dtype) for a in arrays]
        return by_callback(primal, primal(*zeros), *arrays)

    def fwd(*arrays):
        return f(*arrays), arrays

    def bwd(arrays, d):
        def pulled(*arrays):
            rest = arrays[len(names) :]
            _, cache = pair.forward(**dict(zip(names, arrays, strict=False)))
            gradients = (backward or pair.backward)(cache, rest if len(rest) > 1 else rest[0])
            return tuple(np.asarray(gradients[n]) for n in names if n in gradients)

        deltas = d if isinstance(d, tuple) else (d,)
        floating = [a for a in arrays if a.dtype.kind != "i"]
        gradients = iter(by_callback(pulled, tuple(floating), *arrays, *deltas))
        return tuple(None if a.dtype.kind == "i" else next(gradients) for a in arrays)

    f.defvjp(fwd, bwd)
    return f
