"""Pairs that a tolerance must tell apart: sums of their own length, complex numbers, domains, mixed precisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oracles import manual, torch_autograd
from oracles.lazy_modules import F, Tensor, torch
from oracles.rule import Array, Cotangents, Rule
from planted_bugs.pairs import at_point

RNG = np.random.default_rng(10)
Z100 = {"z": RNG.standard_normal(100).astype(np.float32)}


def square(factor: float) -> Rule:
    """z·z with its cotangent off by a factor."""
    return manual(lambda z: (z * z, z), lambda z, d: {"z": (2 * z * d * factor).astype(z.dtype)}, name="square")


at_point(
    "square_off_by_a_millionth",
    square(1 + 2e-6),
    square(1.0),
    Z100,
    [torch_autograd(lambda z: z * z)],
)


def scaled_by_sum(factor: float) -> Rule:
    """z·Σz, with the derivative of the sum off by a factor."""

    def backward(z: Array, d: Array) -> Cotangents:
        return {"z": (d * z.sum() + (d * z).sum() * factor).astype(z.dtype)}

    return manual(lambda z: (z * z.sum(), z), backward, name="scaled by its sum")


at_point(
    "derivative_of_a_sum_off",
    scaled_by_sum(1 + 1e-3),
    scaled_by_sum(1.0),
    Z100,
    [torch_autograd(lambda z: z * z.sum())],
)


def transform(pull: Callable[[Array], Array]) -> Rule:
    """The discrete Fourier transform of a complex array, in real and imaginary parts."""

    def forward(re: Array, im: Array) -> tuple[tuple[Array, Array], None]:
        y = np.fft.fft(re + 1j * im)
        return (y.real, y.imag), None

    def backward(_: None, deltas: tuple[Array, Array]) -> Cotangents:
        g = pull(deltas[0] + 1j * deltas[1])
        return {"re": g.real, "im": g.imag}

    return manual(forward, backward, name="fft")


def transform_torch(re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.fft.fft(torch.complex(re, im))
    return y.real, y.imag


PARTS = {"re": RNG.standard_normal((3, 32)), "im": RNG.standard_normal((3, 32))}
TRANSFORM = transform(lambda d: np.fft.ifft(d) * d.shape[-1])
at_point("fft_pulled_back_by_itself", transform(np.fft.fft), TRANSFORM, PARTS, [torch_autograd(transform_torch)])
at_point("fft_not_scaled", transform(np.fft.ifft), TRANSFORM, PARTS, [torch_autograd(transform_torch)])


def integer_power(factor: float) -> Rule:
    """z³ at numbers of both signs; no other exponent near 3 has a value at the negative ones."""
    return manual(lambda z: (z**3, z), lambda z, d: {"z": 3 * z * z * d * factor}, name="cube")


SIGNED = {"z": np.array([-1.5, -0.3, 0.7, 2.0, -4.0, 1.1, 0.2, -0.9, 3.0])}
at_point(
    "power_of_an_integer_exponent_in_a_tensor",
    integer_power(-1e6),
    integer_power(1.0),
    SIGNED,
    [torch_autograd(lambda z: torch.pow(z, torch.tensor(3.0, dtype=z.dtype)))],
)


def pooled(keep: bool) -> Rule:
    """Max-pooling over windows of 3 by 3 that overlap; what several windows send to a cell adds up, if kept."""

    def windows(x: Array) -> list[tuple[int, int]]:
        return [(i, j) for i in range(x.shape[-2] - 2) for j in range(x.shape[-1] - 2)]

    def forward(x: Array) -> tuple[Array, Array]:
        y = np.empty((x.shape[-2] - 2, x.shape[-1] - 2), x.dtype)
        for i, j in windows(x):
            y[i, j] = x[0, 0, i : i + 3, j : j + 3].max()
        return y[None, None], x

    def backward(x: Array, d: Array) -> Cotangents:
        g = np.zeros_like(x)
        for i, j in windows(x)[::-1]:  # in the reverse of torch's order
            a, b = np.unravel_index(x[0, 0, i : i + 3, j : j + 3].argmax(), (3, 3))
            g[0, 0, i + a, j + b] = d[0, 0, i, j] + (g[0, 0, i + a, j + b] if keep else 0)
        return {"x": g}

    return manual(forward, backward, name="max-pooling")


for _dtype in (np.float32, np.float64):
    at_point(
        f"overlapping_windows_overwrite_{np.dtype(_dtype).name}",
        pooled(keep=False),
        pooled(keep=True),
        {"x": RNG.standard_normal((1, 1, 6, 6)).astype(_dtype)},
        [torch_autograd(lambda x: F.max_pool2d(x, 3, 1))],
    )

TARGETS = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def cross_entropy(normalized: bool) -> Rule:
    """−Σ t log p + (1 − t) log(1 − p); its wrong cotangent is that of logits."""

    def forward(p: Array) -> tuple[Any, Array]:
        return -(TARGETS * np.log(p) + (1 - TARGETS) * np.log(1 - p)).sum(), p

    def backward(p: Array, d: Array) -> Cotangents:
        return {"p": d * (p - TARGETS) / (p * (1 - p) if normalized else 1)}

    return manual(forward, backward, name="cross-entropy")


at_point(
    "cross_entropy_of_probabilities_as_of_logits",
    cross_entropy(normalized=False),
    cross_entropy(normalized=True),
    {"p": RNG.uniform(0.1, 0.9, TARGETS.shape)},
    [torch_autograd(lambda p: F.binary_cross_entropy(p, torch.tensor(TARGETS), reduction="sum"))],
)


def scaled(factor: float) -> Rule:
    """z·m, for a scale m of a coarser dtype, with the cotangent of z off by a factor."""

    def backward(cache: tuple[Array, Array], d: Array) -> Cotangents:
        z, m = cache
        return {"z": d * m.astype(z.dtype) * factor, "m": (d * z).sum(0).astype(m.dtype)}

    return manual(lambda z, m: (z * m, (z, m)), backward, name="scaled")


MIXED = {"z": RNG.standard_normal((5, 3)), "m": RNG.standard_normal(3).astype(np.float16)}
for _factor in (1.05, 1 + 1e-9):
    at_point(
        f"float16_beside_float64_off_by_{_factor - 1:.0e}",
        scaled(_factor),
        scaled(1.0),
        MIXED,
        [torch_autograd(lambda z, m: z * m)],
    )


def looked_up(repeated: bool) -> Rule:
    """Rows of a table; the wrong cotangent keeps one of those that a repeated index sends to a row."""

    def backward(cache: tuple[Array, Array], d: Array) -> Cotangents:
        W, ids = cache
        g = np.zeros_like(W)
        if repeated:
            np.add.at(g, ids[::-1], d[::-1])
        else:
            g[ids] = d
        return {"W": g}

    return manual(lambda W, ids: (W[ids], (W, ids)), backward, name="embedding")


at_point(
    "rows_looked_up_twice_count_once",
    looked_up(repeated=False),
    looked_up(repeated=True),
    {"W": RNG.standard_normal((6, 4)).astype(np.float32), "ids": np.array([0, 3, 3, 5, 3, 0, 1, 3])},
    [torch_autograd(lambda W, ids: F.embedding(ids, W))],
)


def attention(block: int, forgets: bool) -> Rule:
    """Attention in blocks of keys, with an online softmax; the wrong one forgets Σ δ·y in its backward."""

    def forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
        scale = np.asarray(1 / np.sqrt(q.shape[1]), q.dtype)
        largest, total = np.full((len(q), 1), -np.inf, q.dtype), np.zeros((len(q), 1), q.dtype)
        y = np.zeros((len(q), v.shape[1]), q.dtype)
        for j in range(0, len(k), block):
            logits = q @ k[j : j + block].T * scale
            new = np.maximum(largest, logits.max(1, keepdims=True))
            shrunk, weights = np.exp(largest - new), np.exp(logits - new)
            total = total * shrunk + weights.sum(1, keepdims=True)
            y, largest = y * shrunk + weights @ v[j : j + block], new
        y = y / total
        return y, (q, k, v, y, largest + np.log(total))

    def backward(cache: tuple[Array, ...], d: Array) -> Cotangents:
        q, k, v, y, normalizer = cache
        scale = np.asarray(1 / np.sqrt(q.shape[1]), q.dtype)
        mean = 0 if forgets else (d * y).sum(1, keepdims=True)
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for j in range(0, len(k), block):
            keys, values = k[j : j + block], v[j : j + block]
            p = np.exp(q @ keys.T * scale - normalizer)
            s = p * (d @ values.T - mean)
            dq, dk[j : j + block], dv[j : j + block] = dq + s @ keys * scale, s.T @ q * scale, p.T @ d
        return {"q": dq, "k": dk, "v": dv}

    return manual(forward, backward, name=f"attention in blocks of {block}")


def attention_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / q.shape[-1] ** 0.5, -1) @ v


for _size in (4, 16):
    for _dtype in (np.float32, np.float64):
        _arrays = {n: RNG.standard_normal((33, 8)) for n in "qkv"}
        # Logits of up to 300: most rows choose one key.
        _largest = np.abs(_arrays["q"] @ _arrays["k"].T).max() / 8**0.5
        _arrays["q"] *= 300 / _largest
        at_point(
            f"attention_in_blocks_of_{_size}_{np.dtype(_dtype).name}",
            attention(_size, forgets=True),
            attention(_size, forgets=False),
            {n: a.astype(_dtype) for n, a in _arrays.items()},
            [torch_autograd(attention_torch)],
        )
