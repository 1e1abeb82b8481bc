"""Bugs from public reports, planted in the backwards of `pairs`; every adapter must refuse and explain them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pairs import PAIRS, like

import oracles
from oracles import Disagreement, Rule, Verdict


@dataclass(frozen=True)
class PlantedBug:
    """A bug in the backward of a pair.

    Attributes:
        pair: the name of the pair.
        wrong_cotangents: returns the wrong cotangents, from the cache, delta and the correct cotangents.
        quantity: the quantity that is refused.
        message: a part of the report, which explains the bug.
        rows: the rows of the point.
    """

    pair: str
    wrong_cotangents: Callable[[Any, Any, dict[str, Any]], dict[str, Any]]
    quantity: str
    message: str
    rows: int = 3
    verdict: Verdict = Verdict.WRONG

    def backward(self, cache, d):
        return self.wrong_cotangents(cache, d, PAIRS[self.pair].backward(cache, d))

    def refusal_of(self, adapt: Callable[..., Rule], *, against_torch: bool = True) -> Disagreement:
        """Check adapt(pair, wrong backward), and return the error with which `check` refuses it."""
        pair = PAIRS[self.pair]
        subject, references = adapt(pair, self.backward), [pair.torch] if against_torch else []
        with pytest.raises(Disagreement) as excinfo:
            oracles.check(subject, pair.at(3, rows=self.rows), against=references)
        return excinfo.value

    def assert_explains(self, error: Disagreement) -> None:
        """Assert that the error names the quantity and explains the bug."""
        assert error.verdict is self.verdict
        assert error.result.worst.quantity == self.quantity
        assert self.message in " ".join(str(error).split())


def change(quantity, f):
    """Return the correct backward with one cotangent replaced by f of the cache, delta and the correct cotangent."""
    return lambda cache, d, correct: correct | {quantity: f(cache, d, correct[quantity])}


def _counts_repeated_once(cache, d, correct):
    E, i = cache
    dE = np.zeros_like(E)
    dE[i] += d
    return dE


def _norm_of_samples(cache, d, correct):
    z, x, s, g = cache
    dx, n = np.float64(d) * g, z.shape[-1]
    return like(z, (dx - dx.mean(-1, keepdims=True) - x * (dx * x).sum(-1, keepdims=True) / (n - 1)) / s)[0]


def _scaled_in_place(cache, d, correct):
    correct = {n: np.array(g) for n, g in correct.items()}
    d *= 2
    return correct


def _half_inside(cache, d, correct):
    return (correct.astype(np.float16) if correct.dtype.itemsize > 2 else correct).astype(correct.dtype)


BUGS = {
    "bias gradient not summed over the batch": PlantedBug("dense", change("b", lambda c, d, g: d + 0), "b", "(3, 2)"),
    "mean over the batch where a sum belongs": PlantedBug(
        "dense", change("W", lambda c, d, g: g / len(d)), "W", "a mean where a sum belongs"
    ),
    "delta assumed to be ones": PlantedBug("dense", change("W", lambda c, d, g: c[0].T @ np.ones_like(d)), "W", "ones"),
    "magnitude of delta": PlantedBug("tanh", change("z", lambda y, d, g: abs(d) * (1 - y * y)), "z", "|delta|"),
    "weight not transposed, square": PlantedBug(
        "cell", change("h", lambda c, d, g: (d * (1 - c[4] ** 2)) @ c[3]), "h", ""
    ),
    "softmax without its off-diagonal": PlantedBug(
        "softmax", change("z", lambda y, d, g: d * y * (1 - y)), "z", "diagonal"
    ),
    "sum over the batch where the loss has a mean": PlantedBug(
        "cross-entropy", change("z", lambda c, d, g: g * len(g)), "z", "3 times the oracle's"
    ),
    "repeated index counted once": PlantedBug("embedding", change("E", _counts_repeated_once), "E", "once", rows=9),
    "stride forgotten in backward": PlantedBug(
        "conv", change("x", lambda c, d, g: np.concatenate([g[:, :, 1:], 0 * g[:, :, :1]], axis=2)), "x", "shifted"
    ),
    "variance of a sample for one of the population": PlantedBug("layer norm", change("z", _norm_of_samples), "z", ""),
    "second output's delta ignored": PlantedBug(
        "two outputs", change("a", lambda c, d, g: d[0] * c[1]), "a", "output[1]"
    ),
    "all zero": PlantedBug("softmax", change("z", lambda y, d, g: 0 * g), "z", "zero"),
    "state gradient dropped": PlantedBug("cell", change("h", lambda c, d, g: 0 * g), "h", "zero"),
    "delta scaled in place": PlantedBug("tanh", _scaled_in_place, "delta[0]", "was written into"),
    "read in memory order": PlantedBug(
        "cell", change("x", lambda c, d, g: g.ravel(order="K").reshape(g.T.shape).T), "x", "order"
    ),
    "float16 inside a float64 path": PlantedBug(
        "dense",
        change("z", lambda c, d, g: _half_inside(c, d, g)),
        "z",
        "right up to float16",
        verdict=Verdict.UNSTABLE,
    ),
}
# The bugs that every run checks, in every adapter.
QUICK = (
    "bias gradient not summed over the batch",
    "delta assumed to be ones",
    "magnitude of delta",
    "repeated index counted once",
    "state gradient dropped",
    "delta scaled in place",
)
