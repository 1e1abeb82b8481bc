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
from digits_training import Record, arguments, digits
from rich.console import Console

import oracles
from manual_bp import SGD, Linear, Progress, Sequential, SoftmaxCrossEntropy, Tanh, deltas, fit

Tensor: TypeAlias = Any  # of torch or of JAX, neither of which this file imports
NETWORK = Sequential(Linear(64, 32), Tanh(), Linear(32, 10))
LOSS = SoftmaxCrossEntropy("mean")
LEARNING_RATE = 0.3
ENOUGH = 0.95


# One Rule holds every derivative of the network at once. Its primals are the input z.1, the target, the
# parameters, and zeros z.2, z.3, z.4 that are added to the layers' outputs. The cotangent of z.l is then
# δ^l: the subject claims it by `manual_bp.deltas`, and each oracle derives it from the same primal.
def subject(closed_form: bool) -> oracles.Rule:
    """Return the hand-written loss of the network: gradients by (8) and (9), every δ^l by (15) or by (16)."""

    def forward(**primals: np.ndarray) -> tuple[Any, Any]:
        z, params = primals["z.1"], {name: a for name, a in primals.items() if name[0] in "02"}
        for index, layer in enumerate(NETWORK.layers):
            own = {name[2:]: a for name, a in params.items() if name.startswith(f"{index}.")}
            z = layer.forward(own, z)[0] + primals[f"z.{index + 2}"]
        value, cache = LOSS.forward(z, primals["target"])
        return value, (cache, params, primals["z.1"])

    def backward(cache: Any, delta: np.ndarray) -> dict[str, np.ndarray]:
        loss_cache, params, x = cache
        delta_n = LOSS.backward(loss_cache, delta)
        _, grads = NETWORK.backward(NETWORK.forward(params, x)[1], delta_n)
        every = deltas(NETWORK, params, x, delta_n, closed_form=closed_form)
        return grads | {f"z.{number}": each for number, each in enumerate(every, start=1)}

    return oracles.manual(forward, backward, name=f"64-32-10, δ by {'(16)' if closed_form else '(15)'}")


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


BY_15, BY_16 = subject(closed_form=False), subject(closed_form=True)
FRAMEWORKS = oracles.torch_autograd(torch_reference), oracles.jax_vjp(jax_reference)
ORACLES = *FRAMEWORKS, oracles.finite_difference(BY_15)
NAMES = tuple(oracle.name for oracle in ORACLES)


def judged(params: dict[str, np.ndarray], x: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Return the worst disagreement with each oracle over all gradients and every δ^l.

    Raises:
        oracles.Disagreement: where an oracle refuses.
    """
    offsets = {f"z.{number}": np.zeros((len(x), width)) for number, width in ((2, 32), (3, 32), (4, 10))}
    point = {"z.1": x, "target": target, **params, **offsets}
    one = np.float64(1.0)  # ∂L/∂L, as in training
    results = oracles.check(BY_15, point, ORACLES, one), oracles.check(BY_16, point, FRAMEWORKS, one)
    findings = [finding for result in results for finding in result.findings]
    return {name: max(f.ratio for f in findings if f.oracle == name) for name in NAMES}


def train(args: argparse.Namespace, console: Console) -> Record:
    """Train on the digits, judging and printing after every epoch."""
    rng = np.random.default_rng(args.seed)
    (x, target), (held_x, held_target) = digits(rng)
    record = Record(NAMES, console)
    with record.recording(args.epochs) as keep:

        def after_epoch(epoch: Progress) -> bool:
            rows = np.random.default_rng((args.seed, epoch.epoch)).permutation(len(x))[: args.judge_rows]
            try:
                worst = judged(epoch.params, x[rows], target[rows])
            except oracles.Disagreement as disagreement:
                record.stopped = "refused"
                record.say(str(disagreement))
                return True
            y, _ = NETWORK.forward(epoch.params, held_x)
            keep(epoch.loss, float(np.mean(y.argmax(axis=1) == held_target)), worst)
            return False

        result = fit(
            NETWORK, LOSS, NETWORK.init(rng), x, target, SGD(LEARNING_RATE),
            epochs=args.epochs, batch_size=args.batch, rng=rng, callback=after_epoch,
        )  # fmt: skip
    if record.stopped != "refused":
        record.stopped = result.stopped
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print, plot; return the exit status."""
    args = arguments(__doc__ or "", argv, batch=16, judge_rows=4, seeds="split, weights and batches", plot="digits.png")
    record = train(args, Console())
    if record.losses:
        record.plot(args.plot, ENOUGH)
    return record.status(ENOUGH, "every gradient and every δ^l")


if __name__ == "__main__":
    sys.exit(main())
