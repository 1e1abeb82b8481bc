"""Train 64-32-10 on scikit-learn's digits by hand, every gradient judged at every epoch.

    python examples/digits.py --epochs 10 --plot digits.png

After each epoch a mini-batch of real images goes through the network, and all its derivatives are judged by
PyTorch, JAX and finite differences: every ∂L/∂W, every ∂L/∂b and every δ^l by (15). Every δ^l by (16) is
judged by PyTorch and JAX. What is printed is the worst disagreement in units of what rounding allows at that
very point: up to 1 is rounding.

Exit status: 0 if every oracle agreed and the held-out accuracy reached 95 %, 1 if not, 2 for wrong usage, 130
if interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import oracles
from manual_bp import SGD, Linear, Sequential, SoftmaxCrossEntropy, Tanh, deltas, fit
from manual_bp import Progress as Epoch

NETWORK = Sequential(Linear(64, 32), Tanh(), Linear(32, 10))
LOSS = SoftmaxCrossEntropy("mean")
LEARNING_RATE = 0.3
HELD_OUT = 360
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


def torch_reference(target: Any, **p: Any) -> Any:
    """State the same loss as torch writes it; autograd derives the rest."""
    import torch
    from torch.nn.functional import cross_entropy, linear

    z = linear(p["z.1"], p["0.W"].T, p["0.b"][0]) + p["z.2"]
    z = torch.tanh(z) + p["z.3"]
    z = linear(z, p["2.W"].T, p["2.b"][0]) + p["z.4"]
    return cross_entropy(z, target)


def jax_reference(target: Any, **p: Any) -> Any:
    """State the same loss as JAX writes it."""
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


@dataclass
class Record:
    """What the epochs leave: for the plot, and for the exit status."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    disagreements: list[dict[str, float]] = field(default_factory=list)
    refused: bool = False


def train(args: argparse.Namespace, console: Console) -> tuple[Record, str]:
    """Train on the digits, judging and printing after every epoch; return the record and why it stopped."""
    rng = np.random.default_rng(args.seed)
    (x, target), (held_x, held_target) = digits(rng)
    record = Record()
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=args.epochs)

        def after_epoch(epoch: Epoch) -> bool:
            rows = np.random.default_rng((args.seed, epoch.epoch)).permutation(len(x))[: args.judge_rows]
            try:
                worst = judged(epoch.params, x[rows], target[rows])
            except oracles.Disagreement as disagreement:
                record.refused = True
                say(console, str(disagreement))
                return True
            y, _ = NETWORK.forward(epoch.params, held_x)
            accuracy = float(np.mean(y.argmax(axis=1) == held_target))
            record.losses.append(epoch.loss)
            record.accuracies.append(accuracy)
            record.disagreements.append(worst)
            ratios = "  ".join(f"{worst[name]:{max(len(name), 7)}.2g}" for name in NAMES)
            say(console, f"{epoch.epoch:5}  {epoch.loss:6.4f}  {accuracy:8.1%}  {ratios}")
            progress.advance(bar)
            return False

        say(console, f"epoch    loss  held-out  {'  '.join(f'{name:>7}' for name in NAMES)}")
        result = fit(
            NETWORK, LOSS, NETWORK.init(rng), x, target, SGD(LEARNING_RATE),
            epochs=args.epochs, batch_size=args.batch, rng=rng, callback=after_epoch,
        )  # fmt: skip
    return record, result.stopped


def digits(rng: np.random.Generator) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return images (N, 64) of grey levels 0 … 1 and their classes (N,), to train on and held out."""
    from sklearn.datasets import load_digits

    x, target = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    seen, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    return (x[seen] / 16, target[seen]), (x[held_out] / 16, target[held_out])


def plot(record: Record, path: Path) -> None:
    """Write loss, accuracy and disagreement over the epochs as a PNG that is whole or absent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    epochs = range(1, len(record.losses) + 1)
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    left.plot(epochs, record.losses, marker=".")
    left.set(title="loss", xlabel="epoch", yscale="log")
    middle.plot(epochs, [100 * accuracy for accuracy in record.accuracies], marker=".")
    middle.axhline(100 * ENOUGH, color="grey", linestyle=":")
    middle.set(title="held-out accuracy, %", xlabel="epoch")
    for name in NAMES:
        right.plot(epochs, [worst[name] for worst in record.disagreements], marker=".", label=name)
    right.axhline(1, color="grey", linestyle=":")
    right.set(title="worst error / what rounding allows", xlabel="epoch", yscale="log")
    right.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    pyplot.close(figure)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(image.getvalue())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print, plot; return the exit status."""
    args, console = _arguments(argv), Console()
    record, stopped = train(args, console)
    if record.losses:
        plot(record, args.plot)
        say(console, f"plot written to {args.plot}")
    if stopped == "interrupted":
        say(console, "interrupted: this is what was seen until then")
        return 130
    if record.refused or stopped == "diverged":
        say(console, f"FAILED: {'an oracle refuses a gradient' if record.refused else 'training diverged'}")
        return 1
    accuracy = f"held-out accuracy {record.accuracies[-1]:.1%}"
    if record.accuracies[-1] < ENOUGH:
        say(console, f"FAILED: {accuracy}, expected {ENOUGH:.0%} or more")
        return 1
    say(console, f"every gradient and every δ^l agreed at each of {len(record.losses)} epochs; {accuracy}")
    return 0


def say(console: Console, text: str) -> None:
    """Print a line as it is, unwrapped."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for option, default, meaning in (
        ("--epochs", 10, "times through the training images"),
        ("--batch", 16, "images in a step"),
        ("--judge-rows", 4, "images in the mini-batch that is judged"),
    ):
        parser.add_argument(
            option, type=_at_least(1), default=default, metavar="N", help=f"{meaning} (default: {default})"
        )
    parser.add_argument(
        "--seed", type=_at_least(0), default=0, metavar="S", help="of split, weights and batches (default: 0)"
    )
    parser.add_argument(
        "--plot", type=Path, default=Path("digits.png"), metavar="FILE", help="a PNG (default: digits.png)"
    )
    args = parser.parse_args(argv)
    if not args.plot.absolute().parent.is_dir():
        parser.error(f"--plot: the folder of {args.plot} does not exist")
    return args


def _at_least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text}")
        return value

    whole.__name__ = "whole number"
    return whole


if __name__ == "__main__":
    sys.exit(main())
