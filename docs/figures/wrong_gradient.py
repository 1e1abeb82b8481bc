"""Draw docs/figures/wrong_gradient.svg: `python docs/figures/wrong_gradient.py`.

A network is trained five times from the same weights: with the right backward pass, and with one mistake each. The
left panel has the loss, the right one the error of the first gradients in units of their tolerance.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawing import BACKWARD, COLOURS, FAINT, INK, box, line, text, whole

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import oracles

WIDTH, HEIGHT, STEPS, RATE = 860, 430, 1000, 0.1
rng = np.random.default_rng(3)
X, START = (
    rng.standard_normal((32, 2)),
    [rng.standard_normal((2, 8)), np.zeros((1, 8)), rng.standard_normal((8, 1)) / 2],
)
TARGET = np.sin(2 * X[:, :1]) * X[:, 1:]


@dataclass
class Mistake:
    """A name, and what stands in the backward pass: σ'(z), the sum of a bias, W₂'s transpose."""

    name: str
    slope: Callable = lambda a: 1 - a**2
    bias: Callable = lambda e: e.sum(axis=0, keepdims=True)
    sign: float = 1.0


MISTAKES = (
    Mistake("right"),
    Mistake("mean for sum in ∂L/∂b", bias=lambda e: e.mean(axis=0, keepdims=True)),
    Mistake("σ′ forgotten", slope=lambda a: 1.0),
    Mistake("σ′ is 1 − a, not 1 − a²", slope=lambda a: 1 - a),
    Mistake("wrong sign of ∂L/∂W₁", sign=-1.0),
)


def forward(W1, b1, W2):
    """Return the loss, and what the backward needs."""
    a = np.tanh(X @ W1 + b1)
    error = a @ W2 - TARGET
    return np.asarray((error**2).sum() / (2 * len(X))), (a, error, W2)


def backward_with(mistake: Mistake) -> Callable:
    """Return a backward pass that has the mistake."""

    def backward(cache, delta):
        a, error, W2 = cache
        d = error * (delta / len(X))
        e = d @ W2.T * mistake.slope(a)
        return {"W1": mistake.sign * (X.T @ e), "b1": mistake.bias(e), "W2": a.T @ d}

    return backward


def losses(mistake: Mistake) -> list[float]:
    """Return the loss at every step of gradient descent."""
    params, seen = dict(zip(("W1", "b1", "W2"), START, strict=True)), []
    for _ in range(STEPS):
        value, cache = forward(**params)
        seen.append(float(value))
        grads = backward_with(mistake)(cache, 1.0)
        params = {name: w - RATE * grads[name] for name, w in params.items()}
    return seen


def error_in_tolerances(mistake: Mistake) -> float:
    """Return the worst error of the first gradients, in units of the tolerance there."""
    subject = oracles.manual(forward, backward_with(mistake), name=mistake.name)
    primals = dict(zip(("W1", "b1", "W2"), START, strict=True))
    try:
        result = oracles.check(subject, primals, delta=np.float64(1))
    except oracles.Disagreement as refused:
        result = refused.result
    return max(finding.ratio for finding in result.findings if math.isfinite(finding.ratio))


def figure() -> str:
    """Return the whole SVG."""
    left, right, top, bottom = 70, 430, 60, 330
    curves = [losses(mistake) for mistake in MISTAKES]
    low, high = -2.2, 0.0
    body = [text((left + right) / 2, 32, ["What you see: the loss"], 17, INK, "bold")]

    def at(step: int, loss: float) -> tuple[float, float]:
        height = min(max((math.log10(loss) - low) / (high - low), 0), 1)
        return left + (right - left) * step / (STEPS - 1), bottom - (bottom - top) * height

    for power in range(-2, 1):
        y = at(0, 10.0**power)[1]
        body += [line(left, right, y, y), text(left - 8, y + 5, ["10", f"^{power}"], 13, INK, anchor="end")]
    body.append(text((left + right) / 2, bottom + 24, ["step of gradient descent, 0 to 1000"], 13))
    for colour, curve in reversed(list(zip(COLOURS, curves, strict=False))):
        points = " ".join("{:.1f},{:.1f}".format(*at(step, curve[step])) for step in range(0, STEPS, 10))
        body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
    x0, x1 = 510, 820
    body.append(text((x0 + x1) / 2, 32, ["What the judge sees: error / tolerance"], 17, INK, "bold"))

    def across(ratio: float) -> float:
        return x0 + (x1 - x0) * (min(max(math.log10(max(ratio, 0.01)), -1), 15) + 1) / 16

    for power in (0, 5, 10, 15):
        x = across(10.0**power)
        body.append(line(x, x, top, bottom, BACKWARD if power == 0 else FAINT))
        body.append(text(x, bottom + 20, ["10", f"^{power}"], 13))
    body.append(text(across(1) + 6, bottom + 42, ["refused above 1"], 13, BACKWARD, anchor="start"))
    for i, (colour, mistake) in enumerate(zip(COLOURS, MISTAKES, strict=False)):
        y = top + 14 + 54 * i
        end = across(error_in_tolerances(mistake))
        body += [
            box(x0, y + 8, max(end - x0, 2), 16, colour),
            text(x0, y + 2, [mistake.name], 14, colour, "bold", anchor="start"),
        ]
    moral = "Every loss falls at first: a wrong gradient looks like slow learning. The gradient itself shows it."
    body.append(text(WIDTH / 2, 408, [moral], 15))
    return whole(WIDTH, HEIGHT, "Training with a wrong gradient: the loss falls all the same", body)


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(figure(), encoding="utf-8")
