"""Subjects that answer differently for other memory layouts, shared arrays, later calls or special values."""

import random

import numpy as np
import torch
from hypothesis import strategies as st

from oracles import Case, manual, torch_autograd, torch_function
from oracles.strategies import real, rows, widths
from planted_bugs.pairs import at_point, in_search

RNG = np.random.default_rng(7)
POINT = {"z": RNG.standard_normal((4, 3))}
PAIR = {"a": RNG.standard_normal((4, 3)), "b": RNG.standard_normal((4, 3))}
SQUARE = [torch_autograd(lambda z: z * z)]
SUM = [torch_autograd(lambda z: z * z + z)]
PRODUCT = [torch_autograd(lambda a, b: a * a * b)]


def square(z):
    return z * z, z


def square_back(z, delta):
    return {"z": 2 * z * delta}


def of_backward(backward, **options):
    return manual(square, backward, **options)


RIGHT = of_backward(square_back)
RIGHT_TENSORS = of_backward(square_back, arrays="torch")


def read_as_contiguous(array):
    return np.lib.stride_tricks.as_strided(array, array.shape, np.empty(array.shape, array.dtype).strides)


def tensor_read_as_contiguous(tensor):
    return torch.as_strided(tensor, tensor.shape, torch.empty(tensor.shape).stride())


at_point(
    "a strided cotangent read as contiguous",
    of_backward(lambda z, delta: {"z": 2 * z * read_as_contiguous(delta)}),
    of_backward(lambda z, delta: {"z": 2 * z * read_as_contiguous(np.ascontiguousarray(delta))}),
    POINT,
    SQUARE,
)
at_point(
    "only a repeated row read as contiguous",
    of_backward(lambda z, delta: {"z": 2 * z * (read_as_contiguous(delta) if 0 in delta.strides else delta)}),
    RIGHT,
    POINT,
    SQUARE,
)
at_point(
    "a given repeated cotangent read as contiguous",
    of_backward(lambda z, delta: {"z": 2 * z * read_as_contiguous(delta)}),
    RIGHT,
    POINT,
    SQUARE,
    options={"delta": np.broadcast_to(1.5, (4, 3))},
)
at_point(
    "a strided tensor read as contiguous",
    of_backward(lambda z, delta: {"z": 2 * z * tensor_read_as_contiguous(delta)}, arrays="torch"),
    of_backward(lambda z, delta: {"z": 2 * z * tensor_read_as_contiguous(delta.contiguous())}, arrays="torch"),
    POINT,
    SQUARE,
)
at_point(
    "a primal read as contiguous",
    manual(lambda z: (read_as_contiguous(z) ** 2, read_as_contiguous(z).copy()), square_back),
    manual(lambda z: (z**2, np.ascontiguousarray(z)), square_back),
    POINT,
    SQUARE,
)


class FlattenedCotangent(torch.autograd.Function):
    """A square whose backward takes a view that no expanded cotangent has."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    def backward(ctx, delta):
        return (2 * ctx.saved_tensors[0].reshape(-1) * delta.view(-1)).reshape(delta.shape)


class ReshapedCotangent(FlattenedCotangent):
    """The same, by reshape, which copies where it must."""

    @staticmethod
    def backward(ctx, delta):
        return (2 * ctx.saved_tensors[0].reshape(-1) * delta.reshape(-1)).reshape(delta.shape)


at_point(
    "a cotangent viewed as flat",
    torch_function(FlattenedCotangent),
    torch_function(ReshapedCotangent),
    POINT,
    SQUARE,
)


def at_calls(is_wrong):
    calls = [0]

    def backward(z, delta):
        calls[0] += 1
        return {"z": 2 * z * delta * (0.5 if is_wrong(calls[0]) else 1)}

    return of_backward(backward)


at_point("wrong at the fourth call", at_calls(lambda k: k == 4), at_calls(lambda k: k == 10**9), POINT, SQUARE)
at_point("wrong at the first call", at_calls(lambda k: k == 1), RIGHT, POINT, SQUARE)
at_point("wrong at the second call", at_calls(lambda k: k == 2), RIGHT, POINT, SQUARE)
at_point("wrong from the sixth call on", at_calls(lambda k: k > 5), RIGHT, POINT, SQUARE)
# A clock read at irregular times: a real one would make another subject in each run.
at_point("dependent on the time", at_calls(lambda k: (k * 2654435761 >> 7) % 2), RIGHT, POINT, SQUARE)
at_point(
    "zero at negative zero only",
    manual(
        lambda z: (z * z + z, z),
        lambda z, delta: {"z": np.where((z == 0) & np.signbit(z), 0.0, (2 * z + 1) * delta)},
    ),
    manual(lambda z: (z * z + z, z), lambda z, delta: {"z": (2 * z + 1) * delta}),
    {"z": np.array([-0.0, 1.0, 2.0])},
    SUM,
)
at_point(
    "zero at subnormal numbers only",
    manual(
        lambda z: (z * z + z, z),
        lambda z, delta: {
            "z": np.where((z != 0) & (np.abs(z) < np.finfo(z.dtype).tiny), 0.0, (2 * z + 1) * delta).astype(z.dtype)
        },
    ),
    manual(lambda z: (z * z + z, z), lambda z, delta: {"z": (2 * z + 1) * delta}),
    {"z": np.array([5e-324, 1.0, 2.0])},
    SUM,
)


def product_of(backward):
    return manual(lambda a, b: (a * a * b, (a, b)), backward)


def product_back(cache, delta):
    a, b = cache
    return {"a": 2 * a * b * delta, "b": a * a * delta}


def keyed_by_identity(cache, delta):
    gradients = {}
    for array, gradient in zip(cache, product_back(cache, delta).values(), strict=True):
        gradients[id(array)] = gradients.get(id(array), 0) + gradient
    return tuple(gradients[id(array)] for array in cache)


def told_apart_by_is(cache, delta):
    return {n: g * (n == "a" or cache[0] is not cache[1]) for n, g in product_back(cache, delta).items()}


at_point("gradients keyed by id", product_of(keyed_by_identity), product_of(product_back), PAIR, PRODUCT)
at_point("primals told apart by is", product_of(told_apart_by_is), product_of(product_back), PAIR, PRODUCT)
at_point(
    "a mask from numpy.random",
    of_backward(lambda z, delta: {"z": 2 * z * delta * (np.random.random(z.shape) < 0.9)}),  # noqa: NPY002
    manual(
        lambda z: (z * z * np.random.default_rng(1).permutation(3), z),
        lambda z, delta: {"z": 2 * z * delta * np.random.default_rng(1).permutation(3)},
    ),
    POINT,
)
at_point(
    "a factor from random",
    of_backward(lambda z, delta: {"z": 2 * z * delta * random.choice((1.0, 2.0, 3.0))}),
    of_backward(lambda z, delta: {"z": 2 * z * delta * random.Random(0).choice((1.0,))}),
    POINT,
    SQUARE,
)
at_point(
    "a mask from torch",
    of_backward(lambda z, delta: {"z": 2 * z * delta * (torch.rand(z.shape) < 0.5)}, arrays="torch"),
    RIGHT_TENSORS,
    POINT,
    SQUARE,
)


def last_row_unwritten(module):
    def backward(z, delta):
        dz = module.empty_like(z)
        dz[:-1] = 2 * z[:-1] * delta[:-1]
        return {"z": dz}

    return backward


def last_row_written(module):
    def backward(z, delta):
        dz = module.empty_like(z)
        dz[:-1], dz[-1] = 2 * z[:-1] * delta[:-1], 2 * z[-1] * delta[-1]
        return {"z": dz}

    return backward


ZERO_ROW = {"z": np.concatenate([POINT["z"], np.zeros((1, 3))])}
for module, kind in ((np, "numpy"), (torch, "torch")):
    for at, where in ((POINT, ""), (ZERO_ROW, " where the gradient is zero")):
        at_point(
            f"a row never written, {kind}{where}",
            of_backward(last_row_unwritten(module), arrays=kind),
            of_backward(last_row_written(module), arrays=kind),
            at,
            SQUARE,
        )


def squares(subject):
    @st.composite
    def cases(draw):
        return Case(subject, {"z": real(draw(rows()), draw(widths()))}, torch=lambda z: z * z)

    return cases()


in_search("wrong once in eleven calls", at_calls(lambda k: k % 11 == 0), RIGHT, squares)
in_search("wrong at the first call of a search", at_calls(lambda k: k == 1), RIGHT, squares)
in_search(
    "wrong in float16 only",
    of_backward(lambda z, delta: {"z": (3 if z.dtype == np.float16 else 2) * z * delta}),
    RIGHT,
    squares,
    refused_by="shapes_and_dtypes_exact",
)


def wrong_where_repeated(z, delta):
    return {"z": 2 * z * (read_as_contiguous(delta) if delta.ndim and delta.strides[0] == 0 else delta)}


in_search(
    "a repeated cotangent read as contiguous",
    of_backward(wrong_where_repeated),
    RIGHT,
    squares,
    refused_by="layout_independent",
)
