"""Train 64-32-10 on scikit-learn's digits by hand, every gradient judged at every epoch.

    python examples/digits.py --epochs 10 --plot digits.png

After each epoch a mini-batch of real images goes through the network, and all its derivatives are judged by
PyTorch, JAX and finite differences: every ∂L/∂W, every ∂L/∂b and every δ^l by (15). Every δ^l by (16) is
judged by PyTorch and JAX. What is printed is the worst disagreement in units of the tolerance at that
very point: up to 1 is rounding.

Exit status: 0 if every oracle agreed and the held-out accuracy reached 95 %, 1 if not, 2 for wrong usage, 130
if interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from digits_training import Record, arguments, network_rule, point_of, train_judged
from rich.console import Console

import oracles
from manual_bp import SGD, Linear, Sequential, SoftmaxCrossEntropy, Tanh

Tensor: TypeAlias = Any  # of torch or of JAX, neither of which this file imports
NETWORK = Sequential(Linear(64, 32), Tanh(), Linear(32, 10))
LOSS = SoftmaxCrossEntropy("mean")
LEARNING_RATE = 0.3
ENOUGH = 0.95


def torch_reference(target: Tensor, **p: Tensor) -> Tensor:
    """Return the same loss by torch's functions; autograd computes the gradients."""
    import torch
    from torch.nn.functional import cross_entropy, linear

    z = linear(p["z.1"], p["0.W"].T, p["0.b"][0]) + p["z.2"]
    z = torch.tanh(z) + p["z.3"]
    z = linear(z, p["2.W"].T, p["2.b"][0]) + p["z.4"]
    return cross_entropy(z, target)


def jax_reference(target: Tensor, **p: Tensor) -> Tensor:
    """Return the same loss by JAX's functions."""
    import jax
    import jax.numpy as jnp

    z = jnp.einsum("ni,ij->nj", p["z.1"], p["0.W"]) + p["0.b"] + p["z.2"]
    z = jnp.tanh(z) + p["z.3"]
    z = jnp.einsum("ni,ij->nj", z, p["2.W"]) + p["2.b"] + p["z.4"]
    chosen = target[:, None] == jnp.arange(z.shape[1])[None, :]
    return -jnp.where(chosen, jax.nn.log_softmax(z, axis=1), 0).sum(axis=1).mean()


BY_15 = network_rule(NETWORK, LOSS, "64-32-10, δ by (15)")
BY_16 = network_rule(NETWORK, LOSS, "64-32-10, δ by (16)", closed_form=True)
FRAMEWORKS = oracles.torch_autograd(torch_reference), oracles.jax_vjp(jax_reference)
ORACLES = *FRAMEWORKS, oracles.finite_difference(BY_15)
NAMES = tuple(oracle.name for oracle in ORACLES)


def judged(params: dict[str, np.ndarray], x: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Return the worst disagreement with each oracle over all gradients and every δ^l.

    Raises:
        oracles.Disagreement: where an oracle refuses.
    """
    point = point_of(NETWORK, params, x, target)
    one = np.float64(1.0)  # ∂L/∂L, as in training
    results = oracles.check(BY_15, point, ORACLES, one), oracles.check(BY_16, point, FRAMEWORKS, one)
    findings = [finding for result in results for finding in result.findings]
    return {name: max(f.ratio for f in findings if f.oracle == name) for name in NAMES}


def train(args: argparse.Namespace, console: Console) -> Record:
    """Train on the digits, judging and printing after every epoch."""
    record = Record(NAMES, console)
    train_judged(args, record, NETWORK, LOSS, SGD(LEARNING_RATE), judged)
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print, plot; return the exit status."""
    args = arguments(__doc__ or "", argv, batch=16, judge_rows=4, seeds="split, weights and batches", plot="digits.png")
    record = train(args, Console())
    if record.losses:
        record.plot(args.plot, "64-32-10 on 1,437 images of digits, trained by hand-written backpropagation", ENOUGH)
    return record.status(ENOUGH, "every gradient and every δ^l")


if __name__ == "__main__":
    sys.exit(main())
