"""Correct layers: a forward and backward in NumPy, the torch reference of the primal, and how points are drawn."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import oracles
from oracles import Verdict


def slow_except(quick, values):
    """The values to parametrize with; all but the quick ones are marked slow."""
    return [v if v in quick else pytest.param(v, marks=pytest.mark.slow) for v in values]


def accepted(subject, at, against, dtype="float64", **options):
    """Return the result of a check that agrees.

    In 16 bits it may be vacuous instead: rounding reaches a tenth of some cotangent after a few operations. Where all
    primals are empty it is.
    """
    is_coarse = dtype in ("bfloat16", "float16")
    is_empty = not any(np.size(a) for a in at.values())
    with warnings.catch_warnings():
        if is_coarse:
            warnings.simplefilter("ignore", oracles.InconclusiveWarning)
        result = oracles.check(subject, at, against, **options)
    assert result.verdict is Verdict.AGREES or ((is_coarse or is_empty) and result.verdict is Verdict.VACUOUS)
    assert not result.refuses
    assert any(judged for judged, _ in result.judged.values()) or not any(n for _, n in result.judged.values())
    return result


DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Pair:
    """A correct pair, its torch reference, how to draw a point of n rows, and the names of a layer's parameters."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    reference: Callable[..., Any]
    draw: Callable[[Any, int], dict[str, Any]]
    params: tuple[str, ...] = ()

    @property
    def torch(self):
        return oracles.torch_autograd(self.reference)

    def at(self, seed=0, dtype="float64", rows=3):
        point = self.draw(np.random.default_rng(seed), rows)
        return {n: a.astype(DTYPES[dtype]) if a.dtype.kind == "f" else a for n, a in point.items()}

    def assert_agrees(self, subject, dtype, seeds):
        """Assert that an adapter of the pair agrees with torch at several points, and claims every gradient."""
        for seed in range(seeds):
            result = accepted(subject, self.at(seed, dtype), [self.torch], dtype, seed=seed)
            assert not result.not_claimed


def like(z, *arrays):
    """The arrays in the dtype of z: NumPy multiplies bfloat16 matrices in float32, and sums float16 as it likes."""
    return [np.asarray(a).astype(z.dtype) for a in arrays]


def dense(z, W, b):
    return like(z, z @ W + b)[0], (z, W)


def dense_backward(cache, d):
    z, W = cache
    return dict(zip("zWb", like(z, d @ W.T, z.T @ d, d.sum(0, keepdims=True)), strict=True))


def tanh(z):
    y = np.tanh(z)
    return y, y


def tanh_backward(y, d):
    return {"z": d * (1 - y * y)}


def softmax_of(z):
    e = np.exp(z - z.max(-1, keepdims=True, initial=-np.inf if z.dtype.name != "bfloat16" else None))
    return e / e.sum(-1, keepdims=True)


def softmax(z):
    (y,) = like(z, softmax_of(z))
    return y, y


def softmax_backward(y, d):
    return {"z": like(y, y * (d - (d * y).sum(-1, keepdims=True)))[0]}


def cross_entropy(z, target):
    wide = z.astype(np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    rows = np.arange(len(z))
    value = np.log(np.exp(wide).sum(-1)) - wide[rows, target]
    return like(z, value.mean())[0], (z, softmax_of(wide), target)


def cross_entropy_backward(cache, d):
    z, a, target = cache
    error = a.copy()
    error[np.arange(len(a)), target] -= 1
    return {"z": like(z, np.float64(d) * error / len(a))[0]}


def layer_norm(z, g):
    wide = z.astype(np.float64)
    s = np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    x = (wide - wide.mean(-1, keepdims=True)) / s
    return like(z, x * g)[0], (z, x, s, g)


def layer_norm_backward(cache, d):
    z, x, s, g = cache
    dx = np.float64(d) * g
    dz = (dx - dx.mean(-1, keepdims=True) - x * (dx * x).mean(-1, keepdims=True)) / s
    return dict(zip("zg", like(z, dz, (d * x).sum(0)), strict=True))


def embedding(E, i):
    return E[i], (E, i)


def embedding_backward(cache, d):
    E, i = cache
    dE = np.zeros_like(E)
    np.add.at(dE, i, d)
    return {"E": dE}


def conv(x, w):
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2], axis=2)[:, :, ::2]
    return like(x, np.einsum("nclk,ock->nol", np.float64(windows), np.float64(w)))[0], (x, w, windows)


def conv_backward(cache, d):
    x, w, windows = cache
    dx = np.zeros(x.shape)
    for j in range(d.shape[2]):
        dx[:, :, 2 * j : 2 * j + w.shape[2]] += np.einsum("no,ock->nck", np.float64(d[:, :, j]), np.float64(w))
    dw = np.einsum("nclk,nol->ock", np.float64(windows), np.float64(d))
    return dict(zip("xw", like(x, dx, dw), strict=True))


def polar(a, b):
    """Two outputs of two inputs."""
    return (a * np.cos(b), a * np.sin(b)), (a, np.cos(b), np.sin(b))


def polar_backward(cache, d):
    a, c, s = cache
    return {"a": d[0] * c + d[1] * s, "b": a * (d[1] * c - d[0] * s)}


def cell(x, h, U, V):
    """A recurrent cell: the state comes in as a primal and goes out as the output."""
    y = like(x, np.tanh(x @ U + h @ V))[0]
    return y, (x, h, U, V, y)


def cell_backward(cache, d):
    x, h, U, V, y = cache
    e = d * (1 - y * y)
    return dict(zip("xhUV", like(x, e @ U.T, e @ V.T, x.T @ e, h.T @ e), strict=True))


def _torch_softmax(z):
    return z.softmax(-1)


def _torch_cross_entropy(z, target):
    import torch

    return torch.nn.functional.cross_entropy(z, target)


def _torch_norm(z, g):
    centred = z - z.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * g


def _torch_conv(x, w):
    import torch

    return torch.nn.functional.conv1d(x, w, stride=2)


def _draws(**shapes):
    def draw(rng, rows):
        return {
            n: np.asarray(rng.standard_normal([rows if s == "n" else s for s in shape])) for n, shape in shapes.items()
        }

    return draw


def _with(draw, **more):
    return lambda rng, rows: draw(rng, rows) | {n: f(rng, rows) for n, f in more.items()}


PAIRS = {
    "dense": Pair(dense, dense_backward, lambda z, W, b: z @ W + b, _draws(z=("n", 4), W=(4, 2), b=(1, 2)), ("W", "b")),
    "tanh": Pair(tanh, tanh_backward, lambda z: z.tanh(), _draws(z=("n", 3))),
    "softmax": Pair(softmax, softmax_backward, _torch_softmax, _draws(z=("n", 4))),
    "cross-entropy": Pair(
        cross_entropy,
        cross_entropy_backward,
        _torch_cross_entropy,
        _with(_draws(z=("n", 4)), target=lambda rng, rows: rng.integers(4, size=rows)),
    ),
    "layer norm": Pair(layer_norm, layer_norm_backward, _torch_norm, _draws(z=("n", 5), g=(5,)), ("g",)),
    "embedding": Pair(
        embedding,
        embedding_backward,
        lambda E, i: E[i],
        _with(_draws(E=(4, 3)), i=lambda rng, rows: rng.integers(4, size=rows)),
        ("E",),
    ),
    "conv": Pair(conv, conv_backward, _torch_conv, _draws(x=("n", 2, 7), w=(3, 2, 3)), ("w",)),
    "two outputs": Pair(
        polar, polar_backward, lambda a, b: (a * b.cos(), a * b.sin()), _draws(a=("n", 2), b=("n", 2))
    ),
    "cell": Pair(
        cell,
        cell_backward,
        lambda x, h, U, V: (x @ U + h @ V).tanh(),
        _draws(x=("n", 3), h=("n", 2), U=(3, 2), V=(2, 2)),
        ("U", "V"),
    ),
}  # fmt: skip
