"""Losses."""

import numpy as np
import torch

from third_party.activations import sigmoid
from third_party.layers import Layer, grown

F = torch.nn.functional


def pair(*shape):
    return lambda rng, k: {"x": rng.standard_normal(grown(shape, k)), "target": rng.standard_normal(grown(shape, k))}


mse = Layer(
    "mean squared error",
    lambda x, target: ((x - target) ** 2).mean(),
    lambda x, target: (np.mean((x - target) ** 2), x - target),
    lambda e, d: {"x": 2 * d * e / e.size, "target": -2 * d * e / e.size},
    pair(4, 3),
)
mse.mistake("the 2 forgotten", "constant_factor", x=lambda e, d, g: g / 2)
mse.mistake("divided by the batch alone", "constant_factor", x=lambda e, d, g: 2 * d * e / len(e))
mse.mistake("delta left out", "delta_ones", ("delta_ignored",), x=lambda e, d, g: 2 * e / e.size)
mse.mistake("the target's gradient of the wrong sign", "constant_factor", target=lambda e, d, g: -g)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def one_hot(x, label):
    return (label[:, None] == np.arange(x.shape[1])).astype(x.dtype)


def entropy_draw(rng, k):
    n, m = grown((5, 4), k)
    return {"x": rng.standard_normal((n, m)), "label": rng.integers(m, size=n)}


cross_entropy = Layer(
    "cross-entropy",
    lambda x, label: F.cross_entropy(x, label),
    lambda x, label: (-np.log(softmax(x)[np.arange(len(x)), label]).mean(), (x, one_hot(x, label))),
    lambda c, d: {"x": d * (softmax(c[0]) - c[1]) / len(c[0])},
    entropy_draw,
)
cross_entropy.mistake("not divided by the batch", "constant_factor", x=lambda c, d, g: g * len(g))
cross_entropy.mistake(
    "logits − y where p − y belongs", "logits_for_probabilities", x=lambda c, d, g: d * (c[0] - c[1]) / len(c[0])
)
cross_entropy.mistake(
    "softmax along the batch", "softmax_axis", x=lambda c, d, g: d * (softmax(c[0], 0) - c[1]) / len(c[0])
)
cross_entropy.mistake(
    "p where p − y belongs",
    "wrong_only_in_locations",
    ("detached_term",),
    x=lambda c, d, g: d * softmax(c[0]) / len(c[0]),
)

binary = Layer(
    "binary cross-entropy with logits",
    lambda x, target: F.binary_cross_entropy_with_logits(x, target.sigmoid(), reduction="sum"),
    lambda x, target: (np.sum(np.log1p(np.exp(x)) - x * sigmoid(target)), (x, sigmoid(target))),
    lambda c, d: {"x": d * (sigmoid(c[0]) - c[1]), "target": -d * c[0] * c[1] * (1 - c[1])},
    pair(4, 3),
)
binary.mistake("a mean where the loss sums", "constant_factor", x=lambda c, d, g: g / g.size)
binary.mistake("y − p where p − y belongs", "constant_factor", x=lambda c, d, g: -g)


def divergence_draw(rng, k):
    n = grown((3, 5), k)
    return {"p": rng.uniform(0.1, 1, n), "q": rng.uniform(0.1, 1, n)}


divergence = Layer(
    "Kullback–Leibler divergence",
    lambda p, q: (p * torch.log(p / q)).sum(),
    lambda p, q: (np.sum(p * np.log(p / q)), (p, q)),
    lambda c, d: {"p": d * (np.log(c[0] / c[1]) + 1), "q": -d * c[0] / c[1]},
    divergence_draw,
)
divergence.mistake(
    "the 1 of (p log p)' forgotten",
    "detached_term",
    ("term_along_axis", "added_array"),
    p=lambda c, d, g: d * np.log(c[0] / c[1]),
)

cosine = Layer(
    "cosine similarity",
    lambda a, b: (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)),
    lambda a, b: cosine_forward(a, b),
    lambda c, d: {"a": cosine_back(c[0], c[1], d), "b": cosine_back(c[1], c[0], d)},
    lambda rng, k: {n: rng.standard_normal(grown((3, 5), k)) for n in "ab"},
)


def cosine_forward(a, b):
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)), (a, b)


def cosine_back(a, b, d):
    y = cosine_forward(a, b)[0][:, None]
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))[:, None]
    return d[:, None] * (b / scale - y * a / (a * a).sum(-1, keepdims=True))


cosine.mistake(
    "the norms taken as constants",
    "term_along_axis",
    ("detached_term",),
    a=lambda c, d, g: d[:, None] * c[1] / np.sqrt((c[0] ** 2).sum(-1) * (c[1] ** 2).sum(-1))[:, None],
)
cosine.mistake("da and db swapped", "other_name", a=lambda c, d, g: cosine_back(c[1], c[0], d))


def masked_draw(rng, k):
    n, m = grown((4, 5), k)
    return {"x": rng.standard_normal((n, m)), "keep": np.arange(m) < np.arange(n)[:, None] % m + 1}


masked = Layer(
    "mean square of what a mask keeps",
    lambda x, keep: (x * x * keep).sum() / keep.sum(),
    lambda x, keep: ((x * x * keep).sum() / x.dtype.type(keep.sum()), (x, keep)),
    lambda c, d: {"x": 2 * d * c[0] * c[1] / c[0].dtype.type(c[1].sum())},
    masked_draw,
)
masked.mistake("the mask left out", "masked", x=lambda c, d, g: 2 * d * c[0] / g.dtype.type(c[1].sum()))
masked.mistake(
    "divided by all entries", "constant_factor", x=lambda c, d, g: g * (c[1].sum() / c[1].size).astype(g.dtype)
)
