"""The same right pairs as other people write them: objects, torch Functions, custom_vjps, with NumPy inside."""

import numpy as np
import torch

from oracles.backends.arrays import array_of, tensor


def as_class(kind, backward=None):
    """A layer with its parameters, its cache and their gradients in attributes."""

    class Layer:
        def __init__(self):
            for n in kind.params:
                setattr(self, n, np.zeros_like(kind.at()[n]))

        def forward(self, *inputs):
            point = kind.at()
            names = [n for n in point if n not in kind.params]
            own = {n: getattr(self, n) for n in kind.params}
            y, self.cache = kind.forward(**dict(zip(names, inputs, strict=True)), **own)
            return y

        def backward(self, d):
            found = (backward or kind.backward)(self.cache, d)
            for n in kind.params:
                setattr(self, f"d{n}", found.pop(n, None))
            return found

    return Layer


def as_function(kind, backward=None):
    """A torch Function that calls NumPy inside."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.names = tuple(kind.at())
            point = dict(zip(ctx.names, map(array_of, tensors), strict=True))
            y, ctx.cache = kind.forward(**point)
            return tuple(map(tensor, y)) if isinstance(y, tuple) else tensor(y)

        @staticmethod
        def backward(ctx, *deltas):
            d = tuple(map(array_of, deltas))
            found = (backward or kind.backward)(ctx.cache, d if len(d) > 1 else d[0])
            return tuple(tensor(found[n]) if found.get(n) is not None else None for n in ctx.names)

    return Function


def as_module(kind, backward=None):
    """An nn.Module around such a Function."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for n in kind.params:
                setattr(self, n, torch.nn.Parameter(tensor(kind.at()[n])))

        def forward(self, *inputs):
            names = [n for n in kind.at() if n not in kind.params]
            point = dict(zip(names, inputs, strict=True)) | {n: getattr(self, n) for n in kind.params}
            return as_function(kind, backward).apply(*(point[n] for n in kind.at()))

    return Module


def as_custom_vjp(kind, backward=None):
    """A custom_vjp whose rules call NumPy by jax.pure_callback."""
    import jax

    names = tuple(kind.at())

    def called_back(f, like, *arrays):
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like)
        return jax.pure_callback(lambda *a: f(*map(np.asarray, a)), shapes, *arrays)

    def primal(*arrays):
        y, _ = kind.forward(**dict(zip(names, arrays, strict=True)))
        return y

    @jax.custom_vjp
    def f(*arrays):
        floats = [a for a in arrays if a.dtype.kind != "i"]
        zeros = [np.zeros(a.shape, np.int64 if a.dtype.kind == "i" else a.dtype) for a in arrays]
        del floats
        return called_back(primal, primal(*zeros), *arrays)

    def fwd(*arrays):
        return f(*arrays), arrays

    def bwd(arrays, d):
        def pulled(*arrays):
            rest = arrays[len(names) :]
            _, cache = kind.forward(**dict(zip(names, arrays, strict=False)))
            found = (backward or kind.backward)(cache, rest if len(rest) > 1 else rest[0])
            return tuple(np.asarray(found[n]) for n in names if n in found)

        deltas = d if isinstance(d, tuple) else (d,)
        judged = [a for a in arrays if a.dtype.kind != "i"]
        came = iter(called_back(pulled, tuple(judged), *arrays, *deltas))
        return tuple(None if a.dtype.kind == "i" else next(came) for a in arrays)

    f.defvjp(fwd, bwd)
    return f
