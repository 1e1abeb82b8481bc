"""Bugs of public reports, planted in the backwards of `pairs`, which every adapter must refuse and explain."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pairs import PAIRS, like

from oracles import Verdict


@dataclass(frozen=True)
class PlantedBug:
    """A wrong backward of a pair, the quantity that is refused, and a part of the report that explains it."""

    pair: str
    wrong: Callable[[Any, Any, dict[str, Any]], dict[str, Any]]
    quantity: str
    message: str
    rows: int = 3

    def at(self):
        return PAIRS[self.pair].at(3, rows=self.rows)

    def assert_explains(self, refused):
        """Assert that the refusal names the quantity and explains the bug."""
        assert refused.verdict is Verdict.WRONG
        assert refused.result.worst.quantity == self.quantity
        assert self.message in " ".join(str(refused).split())

    def backward(self, cache, d):
        return self.wrong(cache, d, PAIRS[self.pair].backward(cache, d))


def but(quantity, f):
    """The right backward with one cotangent made by f of the cache, delta and the right one."""
    return lambda cache, d, right: right | {quantity: f(cache, d, right[quantity])}


def _forgets_repeated(cache, d, right):
    E, i = cache
    dE = np.zeros_like(E)
    dE[i] += d
    return dE


def _norm_of_samples(cache, d, right):
    z, x, s, g = cache
    dx, n = np.float64(d) * g, z.shape[-1]
    return like(z, (dx - dx.mean(-1, keepdims=True) - x * (dx * x).sum(-1, keepdims=True) / (n - 1)) / s)[0]


def _scaled_in_place(cache, d, right):
    right = {n: np.array(g) for n, g in right.items()}
    d *= 2
    return right


def _half_inside(cache, d, right):
    return (right.astype(np.float16) if right.dtype.itemsize > 2 else right).astype(right.dtype)


BUGS = {
    "bias gradient not summed over the batch": PlantedBug("dense", but("b", lambda c, d, g: d + 0), "b", "(3, 2)"),
    "mean over the batch where a sum belongs": PlantedBug(
        "dense", but("W", lambda c, d, g: g / len(d)), "W", "a mean where a sum belongs"
    ),
    "delta assumed to be ones": PlantedBug("dense", but("W", lambda c, d, g: c[0].T @ np.ones_like(d)), "W", "ones"),
    "magnitude of delta": PlantedBug("tanh", but("z", lambda y, d, g: abs(d) * (1 - y * y)), "z", "|delta|"),
    "weight not transposed, square": PlantedBug(
        "cell", but("h", lambda c, d, g: (d * (1 - c[4] ** 2)) @ c[3]), "h", ""
    ),
    "softmax without its off-diagonal": PlantedBug(
        "softmax", but("z", lambda y, d, g: d * y * (1 - y)), "z", "diagonal"
    ),
    "sum over the batch where the loss has a mean": PlantedBug(
        "cross-entropy", but("z", lambda c, d, g: g * len(g)), "z", "3 times the oracle's"
    ),
    "repeated index counted once": PlantedBug("embedding", but("E", _forgets_repeated), "E", "once", rows=9),
    "stride forgotten in backward": PlantedBug(
        "conv", but("x", lambda c, d, g: np.concatenate([g[:, :, 1:], 0 * g[:, :, :1]], axis=2)), "x", "shifted"
    ),
    "variance of a sample for one of the population": PlantedBug("layer norm", but("z", _norm_of_samples), "z", ""),
    "second output's delta ignored": PlantedBug("two outputs", but("a", lambda c, d, g: d[0] * c[1]), "a", "output[1]"),
    "all zero": PlantedBug("softmax", but("z", lambda y, d, g: 0 * g), "z", "zero"),
    "state gradient dropped": PlantedBug("cell", but("h", lambda c, d, g: 0 * g), "h", "zero"),
    "delta scaled in place": PlantedBug("tanh", _scaled_in_place, "delta[0]", "was written into"),
    "read in memory order": PlantedBug(
        "cell", but("x", lambda c, d, g: g.ravel(order="K").reshape(g.T.shape).T), "x", "order"
    ),
    "float16 inside a float64 path": PlantedBug(
        "dense", but("z", lambda c, d, g: _half_inside(c, d, g)), "z", "right up to float16"
    ),
}
# Those that every run checks, in every adapter.
QUICK = (
    "bias gradient not summed over the batch",
    "delta assumed to be ones",
    "magnitude of delta",
    "repeated index counted once",
    "state gradient dropped",
    "delta scaled in place",
)
