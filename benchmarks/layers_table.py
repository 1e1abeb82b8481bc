"""The operations that `benchmarks/layers.py` times: each layer and loss at two sizes, and torch's equivalent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.shared import Foreign
from manual_bp import Array


@dataclass(frozen=True)
class Bench:
    """One operation at one size.

    Attributes:
        make: the layer or loss, of the module manual_bp.
        inputs: shapes of its inputs, or arrays: indices and masks.
        torch: ``f(params, *inputs) -> y`` on tensors, the parameters under manual_bp's names.
    """

    make: Callable[[ModuleType], Foreign]
    inputs: tuple[tuple[int, ...] | Array, ...]
    torch: Callable[..., Foreign]


def below(n: int, *shape: int) -> Array:
    return np.random.default_rng(0).integers(0, n, shape)


def conv(n: int, c: int, h: int, out: int, groups: int = 1) -> Bench:
    return Bench(
        lambda m: m.Conv2d(c, out, 3, padding=1, groups=groups),
        ((n, c, h, h),),
        lambda p, z: F.conv2d(z, p["W"], p["b"], 1, 1, 1, groups),
    )


def conv_transpose(n: int, c: int, h: int, out: int) -> Bench:
    return Bench(
        lambda m: m.ConvTranspose2d(c, out, 3, 2, 1),
        ((n, c, h, h),),
        lambda p, z: F.conv_transpose2d(z, p["W"], p["b"], 2, 1),
    )


def max_pool(*shape: int) -> Bench:
    return Bench(lambda m: m.MaxPool2d(2), (shape,), lambda p, z: F.max_pool2d(z, 2))


def overlapping_pool(*shape: int) -> Bench:
    return Bench(lambda m: m.MaxPool2d(3, 2, 1), (shape,), lambda p, z: F.max_pool2d(z, 3, 2, 1))


def avg_pool(*shape: int) -> Bench:
    return Bench(lambda m: m.AvgPool2d(2), (shape,), lambda p, z: F.avg_pool2d(z, 2))


def batch_norm(*shape: int) -> Bench:
    n = shape[1]

    def reference(p: Foreign, z: Foreign, mean: Foreign, var: Foreign) -> Foreign:
        return F.batch_norm(z, mean.detach().clone(), var.detach().clone(), p["gamma"], p["beta"], training=True)

    return Bench(lambda m: m.BatchNorm(n), (shape, np.zeros(n), np.ones(n)), reference)


def layer_norm(*shape: int) -> Bench:
    n = shape[-1:]
    return Bench(lambda m: m.LayerNorm(n), (shape,), lambda p, z: F.layer_norm(z, n, p["gamma"], p["beta"]))


def rms_norm(*shape: int) -> Bench:
    n = shape[-1:]
    return Bench(lambda m: m.RMSNorm(n), (shape,), lambda p, z: F.rms_norm(z, n, p["gamma"], 1e-5))


def embedding(entries: int, out: int, *shape: int) -> Bench:
    return Bench(lambda m: m.Embedding(entries, out), (below(entries, *shape),), lambda p, z: F.embedding(z, p["W"]))


def linear(n: int, n_in: int, out: int) -> Bench:
    return Bench(lambda m: m.Linear(n_in, out), ((n, n_in),), lambda p, z: torch.addmm(p["b"], z, p["W"]))


def recurrent(name: str, n: int, steps: int, n_in: int, hidden: int) -> Bench:
    states = (n, 1, hidden)
    several = name == "LSTM"

    def reference(p: Foreign, z: Foreign, *first: Foreign) -> Foreign:
        b, d = p["0.b"][0], p["0.d"][0] if "0.d" in p else torch.zeros_like(p["0.b"][0])
        before = tuple(s.transpose(0, 1) for s in first)
        flat = [p["0.W"].T.contiguous(), p["0.U"].T.contiguous(), b, d]
        function = torch.lstm if several else torch.gru
        y, *last = function(z, before if several else before[0], flat, True, 1, 0.0, False, False, True)
        return (y, *(s.transpose(0, 1) for s in last))

    return Bench(lambda m: getattr(m, name)(n_in, hidden), ((n, steps, n_in), *[states] * (1 + several)), reference)


def activation(name: str, reference: Callable[[Foreign], Foreign], *shape: int) -> Bench:
    return Bench(lambda m: getattr(m, name)(), (shape,), lambda p, z: reference(z))


def prelu(*shape: int) -> Bench:
    return Bench(lambda m: m.PReLU(), (shape,), lambda p, z: F.prelu(z, p["slope"]))


def swiglu(z: Foreign) -> Foreign:
    a, b = z.chunk(2, dim=-1)
    return F.silu(a) * b


def attention(n: int, steps: int, width: int, heads: int) -> Bench:
    def reference(p: Foreign, z: Foreign) -> Foreign:
        q, k, v = (z @ p[f"W_{c}"] + p.get(f"b_{c}", 0) for c in "qkv")
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return y @ p["W_o"] + p.get("b_o", 0)

    return Bench(lambda m: m.MultiHeadAttention(width, heads), ((n, steps, width),), reference)


def cross_entropy(name: str, n: int, classes: int) -> Bench:
    reference = lambda p, y, t: F.cross_entropy(y, t)  # noqa: E731
    return Bench(lambda m: getattr(m, name)(), ((n, classes), below(classes, n)), reference)


def with_logits(n: int, k: int) -> Bench:
    reference = lambda p, y, t: F.binary_cross_entropy_with_logits(y, t, reduction="sum") / n  # noqa: E731
    target = np.random.default_rng(0).random((n, k))
    return Bench(lambda m: m.BinaryCrossEntropyWithLogits(), ((n, k), target), reference)


def huber(n: int, k: int) -> Bench:
    reference = lambda p, y, t: F.huber_loss(y, t, reduction="sum") / n  # noqa: E731
    return Bench(lambda m: m.Huber(), ((n, k), np.random.default_rng(0).standard_normal((n, k))), reference)


SMALL, LARGE = (32, 64), (512, 1024)
ELEMENTWISE: dict[str, Callable[[Foreign], Foreign]] = {
    "ReLU": torch.relu,
    "LeakyReLU": F.leaky_relu,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Softplus": F.softplus,
    "SwiGLU": swiglu,
    "Softmax": lambda z: torch.softmax(z, -1),
    "LogSoftmax": lambda z: torch.log_softmax(z, -1),
}
# By the name in manual_bp: small, then large. What manual_bp does not have is left out.
TABLE: dict[str, tuple[Bench, ...]] = {
    "Linear": (linear(32, 64, 64), linear(256, 1024, 1024)),
    "Conv2d": (conv(2, 2, 6, 3), conv(8, 3, 32, 16), conv(16, 64, 28, 64), conv(8, 32, 56, 32, 32)),
    "ConvTranspose2d": (conv_transpose(2, 2, 6, 3), conv_transpose(16, 32, 14, 32)),
    "MaxPool2d": (max_pool(2, 3, 8, 8), max_pool(32, 32, 32, 32), overlapping_pool(32, 32, 32, 32)),
    "AvgPool2d": (avg_pool(2, 3, 8, 8), avg_pool(32, 32, 32, 32)),
    "BatchNorm": (batch_norm(32, 64), batch_norm(32, 32, 32, 32)),
    "LayerNorm": (layer_norm(*SMALL), layer_norm(*LARGE)),
    "RMSNorm": (rms_norm(*SMALL), rms_norm(*LARGE)),
    "Embedding": (embedding(50, 16, 4, 10), embedding(10000, 256, 32, 128)),
    "LSTM": (recurrent("LSTM", 4, 6, 8, 8), recurrent("LSTM", 32, 50, 128, 128)),
    "GRU": (recurrent("GRU", 4, 6, 8, 8), recurrent("GRU", 32, 50, 128, 128)),
    "MultiHeadAttention": (attention(2, 8, 16, 2), attention(8, 128, 256, 8)),
    **{name: (activation(name, f, *SMALL), activation(name, f, *LARGE)) for name, f in ELEMENTWISE.items()},
    "PReLU": (prelu(*SMALL), prelu(*LARGE)),
    "SoftmaxCrossEntropy": (
        cross_entropy("SoftmaxCrossEntropy", 32, 10),
        cross_entropy("SoftmaxCrossEntropy", 256, 8192),
    ),
    "CrossEntropy": (cross_entropy("CrossEntropy", 32, 10), cross_entropy("CrossEntropy", 256, 8192)),
    "BinaryCrossEntropyWithLogits": (with_logits(*SMALL), with_logits(*LARGE)),
    "Huber": (huber(*SMALL), huber(*LARGE)),
}
