"""Bugs of public reports, planted in the backwards of `kinds`: what every lift must refuse, and in which words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from kinds import KINDS, like

from oracles import Verdict


@dataclass(frozen=True)
class Planted:
    """A wrong backward of a kind, the quantity that is refused, and a telling part of the report."""

    kind: str
    wrong: Callable[[Any, Any, dict[str, Any]], dict[str, Any]]
    quantity: str
    said: str
    rows: int = 3

    def at(self):
        return KINDS[self.kind].at(3, rows=self.rows)

    def require(self, refused):
        """The refusal is the one that this bug deserves."""
        assert refused.verdict is Verdict.WRONG
        assert refused.result.worst.quantity == self.quantity
        assert self.said in " ".join(str(refused).split())

    def backward(self, cache, d):
        return self.wrong(cache, d, KINDS[self.kind].backward(cache, d))


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
    "bias gradient not summed over the batch": Planted("dense", but("b", lambda c, d, g: d + 0), "b", "(3, 2)"),
    "mean over the batch where a sum belongs": Planted(
        "dense", but("W", lambda c, d, g: g / len(d)), "W", "a mean where a sum belongs"
    ),
    "delta assumed to be ones": Planted("dense", but("W", lambda c, d, g: c[0].T @ np.ones_like(d)), "W", "ones"),
    "magnitude of delta": Planted("tanh", but("z", lambda y, d, g: abs(d) * (1 - y * y)), "z", "|delta|"),
    "weight not transposed, square": Planted("cell", but("h", lambda c, d, g: (d * (1 - c[4] ** 2)) @ c[3]), "h", ""),
    "softmax without its off-diagonal": Planted("softmax", but("z", lambda y, d, g: d * y * (1 - y)), "z", "diagonal"),
    "sum over the batch where the loss has a mean": Planted(
        "cross-entropy", but("z", lambda c, d, g: g * len(g)), "z", "3 times the oracle's"
    ),
    "repeated index counted once": Planted("embedding", but("E", _forgets_repeated), "E", "once", rows=9),
    "stride forgotten in backward": Planted(
        "conv", but("x", lambda c, d, g: np.concatenate([g[:, :, 1:], 0 * g[:, :, :1]], axis=2)), "x", "shifted"
    ),
    "variance of a sample for one of the population": Planted("layer norm", but("z", _norm_of_samples), "z", ""),
    "second output's delta ignored": Planted("two outputs", but("a", lambda c, d, g: d[0] * c[1]), "a", "output[1]"),
    "all zero": Planted("softmax", but("z", lambda y, d, g: 0 * g), "z", "zero"),
    "state gradient dropped": Planted("cell", but("h", lambda c, d, g: 0 * g), "h", "zero"),
    "delta scaled in place": Planted("tanh", _scaled_in_place, "delta[0]", "was written into"),
    "read in memory order": Planted(
        "cell", but("x", lambda c, d, g: g.ravel(order="K").reshape(g.T.shape).T), "x", "order"
    ),
    "float16 inside a float64 path": Planted(
        "dense", but("z", lambda c, d, g: _half_inside(c, d, g)), "z", "right up to float16"
    ),
}
# Those that every run looks at, in every lift.
QUICK = (
    "bias gradient not summed over the batch",
    "delta assumed to be ones",
    "magnitude of delta",
    "repeated index counted once",
    "state gradient dropped",
    "delta scaled in place",
)
