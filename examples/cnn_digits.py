"""Train a convolutional network on scikit-learn's digits by hand, every gradient judged at every epoch.

    python examples/cnn_digits.py --epochs 10 --plot cnn.png

Two blocks of convolution, batch normalization, ReLU and max pooling, then dropout and a linear layer, by Adam. The
running statistics and the generator of dropout are values that go in and come out: nothing is hidden in the network.

After each epoch a mini-batch of real images goes through the network in training, and PyTorch and JAX judge its loss,
the next running statistics, and the gradient of all that by every parameter, every pixel and every running statistic.
What is printed is the worst disagreement in units of what rounding allows at that very point: up to 1 is rounding.

Exit status: 0 if both agreed and the held-out accuracy reached 97 %, 1 if not, 2 for wrong usage, 130 if interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import oracles
from manual_bp import (
    Adam,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    minibatches,
)

NETWORK = Sequential(
    Conv2d(1, 16, 3, padding="same"), BatchNorm(16), ReLU(), MaxPool2d(2),
    Conv2d(16, 32, 3, padding="same"), BatchNorm(32), ReLU(), MaxPool2d(2),
    Flatten(), Dropout(0.25), Linear(128, 10),
)  # fmt: skip
EVALUATED = Sequential(*(replace(x, training=False) if hasattr(x, "training") else x for x in NETWORK.layers))
LOSS = SoftmaxCrossEntropy("mean")
OPTIMIZER = Adam(3e-3)
STATE = NETWORK.outputs[1:]  # "1.running_mean", "1.running_var", "5.running_mean", "5.running_var"
HELD_OUT = 360
ENOUGH = 0.97

Arrays = dict[str, np.ndarray]


def forward(params: Arrays, state: Arrays, rng: np.random.Generator, x: np.ndarray, target: np.ndarray) -> Any:
    """Return the loss and the next running statistics, and what `backward` needs to know."""
    beside = [rng if name.endswith(".rng") else state[name] for name in NETWORK.inputs[1:]]
    (y, *moved), cache = NETWORK.forward(params, (x, *beside))
    value, loss_cache = LOSS.forward(y, target)
    return (value, *moved), (cache, loss_cache)


def backward(cache: Any, delta: tuple[Any, ...]) -> tuple[Arrays, Arrays]:
    """Return the gradients by the inputs and by the parameters, given those by the loss and by the next state."""
    network_cache, loss_cache = cache
    of_inputs, grads = NETWORK.backward(network_cache, (LOSS.backward(loss_cache, delta[0]), *delta[1:]))
    return dict(zip(NETWORK.inputs, of_inputs, strict=True)), grads


def subject() -> oracles.Rule:
    """Return the hand-written network as what is judged; its primals are the inputs, parameters and the target."""

    def judged_forward(target: np.ndarray, kept: np.ndarray, **primals: np.ndarray) -> Any:
        state = {name: primals.pop(name) for name in STATE}
        rng, z = np.random.default_rng(int(primals.pop("9.rng"))), primals.pop("z")
        return forward(primals, state, rng, z, target)

    def judged_backward(cache: Any, delta: Any) -> Arrays:
        of_inputs, grads = backward(cache, delta)
        return of_inputs | grads

    return oracles.manual(judged_forward, judged_backward, name="convolutional network")


# The references know the entries that dropout keeps, `kept`, not the seed: frameworks draw other numbers from it.
def torch_reference(z: Any, target: Any, kept: Any, **p: Any) -> Any:
    """State the same in torch's own words; autograd derives the rest."""
    import torch
    from torch.nn import functional as F

    moved = []
    for i in (1, 5):  # where the batch normalizations are
        z = F.conv2d(z, p[f"{i - 1}.W"], p[f"{i - 1}.b"], padding="same")
        mean, var = z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=True)
        moved += [torch.lerp(p[f"{i}.running_mean"], mean, 0.1), torch.lerp(p[f"{i}.running_var"], var, 0.1)]
        z = F.max_pool2d(F.relu(F.batch_norm(z, None, None, p[f"{i}.gamma"], p[f"{i}.beta"], training=True)), 2)
    z = F.linear(z.flatten(1) * kept / 0.75, p["10.W"].T, p["10.b"][0])
    return F.cross_entropy(z, target), *moved


def jax_reference(z: Any, target: Any, kept: Any, **p: Any) -> Any:
    """State the same as JAX writes it."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    moved = []
    for i in (1, 5):  # where the batch normalizations are
        z = lax.conv_general_dilated(z, p[f"{i - 1}.W"], (1, 1), "SAME") + p[f"{i - 1}.b"][:, None, None]
        mean = z.mean((0, 2, 3))
        var = jnp.square(z - mean[:, None, None]).mean((0, 2, 3))
        n = z.shape[0] * z.shape[2] * z.shape[3]
        moved += [0.9 * p[f"{i}.running_mean"] + 0.1 * mean, 0.9 * p[f"{i}.running_var"] + 0.1 * var * n / (n - 1)]
        z = (z - mean[:, None, None]) * lax.rsqrt(var + 1e-5)[:, None, None]
        z = jax.nn.relu(z * p[f"{i}.gamma"][:, None, None] + p[f"{i}.beta"][:, None, None])
        z = lax.reduce_window(z, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    z = jnp.einsum("ni,ij->nj", z.reshape(z.shape[0], 128) * kept / 0.75, p["10.W"]) + p["10.b"]
    chosen = target[:, None] == jnp.arange(10)[None, :]
    return -jnp.where(chosen, jax.nn.log_softmax(z, axis=1), 0).sum(axis=1).mean(), *moved


SUBJECT = subject()
ORACLES = oracles.torch_autograd(torch_reference), oracles.jax_vjp(jax_reference)
NAMES = tuple(oracle.name for oracle in ORACLES)


def judged(params: Arrays, state: Arrays, x: np.ndarray, target: np.ndarray, seed: int) -> dict[str, float]:
    """Return the worst disagreement with each oracle over the loss, the next state and all gradients.

    Raises:
        oracles.Disagreement: where an oracle refuses.
    """
    kept = np.random.default_rng(seed).random((len(x), 128), np.float32) >= 0.25
    point = {"z": x, "target": target, "kept": kept, **state, "9.rng": np.array(seed), **params}
    rng = np.random.default_rng(seed)
    delta = np.float64(1.0), *(rng.standard_normal(a.shape) for a in state.values())
    result = oracles.check(SUBJECT, point, ORACLES, delta)
    return {name: max(f.ratio for f in result.findings if f.oracle == name) for name in NAMES}


@dataclass
class Run:
    """Where training stands, and what the epochs leave: for the plot, and for the exit status."""

    params: Arrays
    state: Arrays
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    disagreements: list[dict[str, float]] = field(default_factory=list)
    stopped: str = "finished"


def train(args: argparse.Namespace, console: Console) -> Run:
    """Train on the digits, judging and printing after every epoch."""
    rng = np.random.default_rng(args.seed)
    (x, target), held_out = digits(rng)
    channels = {name: NETWORK.layers[int(name.split(".")[0])].n for name in STATE}
    run = Run(NETWORK.init(rng), {name: (np.zeros if "mean" in name else np.ones)(n) for name, n in channels.items()})
    moments = OPTIMIZER.init(run.params)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    say(console, f"epoch    loss  held-out  {'  '.join(f'{name:>7}' for name in NAMES)}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=args.epochs)
        try:
            for epoch in range(1, args.epochs + 1):
                loss = 0.0
                for rows in minibatches(len(x), args.batch, rng):
                    (value, *moved), cache = forward(run.params, run.state, rng, x[rows], target[rows])
                    _, grads = backward(cache, (1.0, *map(np.zeros_like, moved)))
                    run.params, moments = OPTIMIZER.step(run.params, grads, moments)
                    run.state = dict(zip(STATE, moved, strict=True))
                    loss += float(value) * len(rows) / len(x)
                rows = np.random.default_rng((args.seed, epoch)).permutation(len(x))[: args.judge_rows]
                worst = judged(run.params, run.state, x[rows], target[rows], seed=epoch)
                run.losses.append(loss)
                run.accuracies.append(accuracy(run, *held_out))
                run.disagreements.append(worst)
                ratios = "  ".join(f"{worst[name]:7.2g}" for name in NAMES)
                say(console, f"{epoch:5}  {loss:6.4f}  {run.accuracies[-1]:8.1%}  {ratios}")
                progress.advance(bar)
        except oracles.Disagreement as disagreement:
            run.stopped = "refused"
            say(console, str(disagreement))
        except KeyboardInterrupt:
            run.stopped = "interrupted"
    return run


def accuracy(run: Run, x: np.ndarray, target: np.ndarray) -> float:
    """Return the share of images that the network, in evaluation, puts into their class."""
    y, _ = EVALUATED.forward(run.params, (x, *run.state.values()))
    return float(np.mean(y.argmax(axis=1) == target))


def digits(rng: np.random.Generator) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return images (N, 1, 8, 8) of grey levels 0 … 1 and their classes (N,), to train on and held out."""
    from sklearn.datasets import load_digits

    x, target = load_digits(return_X_y=True)
    x = x.reshape(-1, 1, 8, 8) / 16
    order = rng.permutation(len(x))
    seen, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    return (x[seen], target[seen]), (x[held_out], target[held_out])


def plot(run: Run, path: Path) -> None:
    """Write loss, accuracy, disagreement and the first kernels as a PNG that is whole or absent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    epochs = range(1, len(run.losses) + 1)
    figure, axes = pyplot.subplots(1, 4, figsize=(16, 4), layout="constrained")
    axes[0].plot(epochs, run.losses, marker=".")
    axes[0].set(title="loss", xlabel="epoch", yscale="log")
    axes[1].plot(epochs, [100 * share for share in run.accuracies], marker=".")
    axes[1].axhline(100 * ENOUGH, color="grey", linestyle=":")
    axes[1].set(title="held-out accuracy, %", xlabel="epoch")
    for name in NAMES:
        axes[2].plot(epochs, [worst[name] for worst in run.disagreements], marker=".", label=name)
    axes[2].axhline(1, color="grey", linestyle=":")
    axes[2].set(title="worst error / what rounding allows", xlabel="epoch", yscale="log")
    axes[2].legend()
    kernels = np.pad(run.params["0.W"][:, 0], ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    axes[3].imshow(kernels.reshape(4, 4, 4, 4).swapaxes(1, 2).reshape(16, 16), cmap="gray")
    axes[3].set(title="kernels of the first convolution", xticks=(), yticks=())
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
    run = train(args, console)
    if run.losses:
        plot(run, args.plot)
        say(console, f"plot written to {args.plot}")
    if run.stopped == "interrupted":
        say(console, "interrupted: this is what was seen until then")
        return 130
    if run.stopped == "refused":
        say(console, "FAILED: an oracle refuses a gradient")
        return 1
    reached = f"held-out accuracy {run.accuracies[-1]:.1%}"
    if run.accuracies[-1] < ENOUGH:
        say(console, f"FAILED: {reached}, expected {ENOUGH:.0%} or more")
        return 1
    say(console, f"every gradient agreed at each of {len(run.losses)} epochs; {reached}")
    return 0


def say(console: Console, text: str) -> None:
    """Print a line as it is, unwrapped."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for option, default, least, meaning in (
        ("--epochs", 10, 1, "times through the training images"),
        ("--batch", 32, 1, "images in a step"),
        ("--judge-rows", 8, 1, "images in the mini-batch that is judged"),
        ("--seed", 0, 0, "of split, weights, batches and dropout"),
    ):
        parser.add_argument(
            option, type=_at_least(least), default=default, metavar="N", help=f"{meaning} (default: {default})"
        )
    parser.add_argument("--plot", type=Path, default=Path("cnn.png"), metavar="FILE", help="a PNG (default: cnn.png)")
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
