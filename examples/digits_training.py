"""Shared parts of the trainings on digits: images, the network as one Rule, record and plot of the epochs, options."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

import oracles
from manual_bp import SGD, Progress, Sequential, deltas, fit

HELD_OUT = 360
Images = tuple[np.ndarray, np.ndarray]
Arrays = dict[str, np.ndarray]


def digits(rng: np.random.Generator) -> tuple[Images, Images]:
    """Return images (N, 64) of grey levels 0 … 1 and their classes (N,), to train on and held out."""
    from sklearn.datasets import load_digits

    x, target = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    train, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    return (x[train] / 16, target[train]), (x[held_out] / 16, target[held_out])


# One Rule holds every derivative of a network at once. Its primals are the input z.1, the target, the parameters, and
# zeros z.2, z.3 … that are added to the layers' outputs. The cotangent of z.l is then δ^l: the subject claims it by
# `manual_bp.deltas`, and each oracle derives it from the same primal.
def network_rule(network: Sequential, loss: Any, name: str, *, closed_form: bool = False) -> oracles.Rule:
    """Return the hand-written loss of a network: gradients by (8) and (9), every δ^l by (15) or in closed form (16)."""

    def forward(**primals: np.ndarray) -> tuple[Any, Any]:
        z, params = primals["z.1"], {n: a for n, a in primals.items() if n[0].isdigit()}
        for index, layer in enumerate(network.layers):
            own = {n.partition(".")[2]: a for n, a in params.items() if n.startswith(f"{index}.")}
            z = layer.forward(own, z)[0] + primals[f"z.{index + 2}"]
        value, cache = loss.forward(z, primals["target"])
        return value, (cache, params, primals["z.1"])

    def backward(cache: Any, delta: np.ndarray) -> dict[str, np.ndarray]:
        loss_cache, params, x = cache
        delta_n = loss.backward(loss_cache, delta)
        _, grads = network.backward(network.forward(params, x)[1], delta_n)
        every = deltas(network, params, x, delta_n, closed_form=closed_form)
        return grads | {f"z.{number}": each for number, each in enumerate(every, start=1)}

    return oracles.manual(forward, backward, name=name)


def point_of(network: Sequential, params: Arrays, x: np.ndarray, target: np.ndarray) -> Arrays:
    """Return the primals of a network's Rule: images, classes, parameters, and the zeros after each layer."""
    point, z = {"z.1": x, "target": target, **params}, x
    for index, layer in enumerate(network.layers):
        z, _ = layer.forward({n.partition(".")[2]: a for n, a in params.items() if n.startswith(f"{index}.")}, z)
        point[f"z.{index + 2}"] = np.zeros_like(z)
    return point


@dataclass
class Record:
    """The losses and accuracies of the epochs, for the plot and the exit status."""

    oracles: tuple[str, ...]
    console: Console
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    disagreements: list[dict[str, float]] = field(default_factory=list)
    stopped: str = "finished"

    @contextmanager
    def recording(self, epochs: int) -> Iterator[Callable[[float, float, dict[str, float]], None]]:
        """Print a header, and give what keeps and prints an epoch's loss, accuracy and worst disagreements."""
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.say(f"epoch    loss  held-out  {'  '.join(f'{name:>7}' for name in self.oracles)}")
        with ProgressBar(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as progress:
            bar = progress.add_task("", total=epochs)

            def keep(loss: float, accuracy: float, worst: dict[str, float]) -> None:
                self.losses.append(loss)
                self.accuracies.append(accuracy)
                self.disagreements.append(worst)
                ratios = "  ".join(f"{worst[name]:{max(len(name), 7)}.2g}" for name in self.oracles)
                self.say(f"{len(self.losses):5}  {loss:6.4f}  {accuracy:8.1%}  {ratios}")
                progress.advance(bar)

            yield keep

    def say(self, text: str) -> None:
        """Print a line as it is, unwrapped."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def plot(self, path: Path, title: str, enough: float, more: Callable[[Any], None] | None = None) -> None:
        """Write loss, accuracy and disagreement over the epochs, and more, as a PNG that is whole or absent."""
        epochs, count = range(1, len(self.losses) + 1), 3 if more is None else 4
        with figure_in(path, title, count) as axes:
            axes[0].plot(epochs, self.losses, marker=".")
            axes[0].set(title="Loss on the training images", xlabel="epoch", ylabel="mean cross-entropy", yscale="log")
            axes[1].plot(epochs, [100 * share for share in self.accuracies], marker=".")
            axes[1].set(title="Held-out images in their class", xlabel="epoch", ylabel="%")
            draw_bound(axes[1], 100 * enough, "fails below", above=False)
            for name in self.oracles:
                axes[2].plot(epochs, [worst[name] for worst in self.disagreements], marker=".", label=name)
            axes[2].set(title="Worst error of any gradient", xlabel="epoch", ylabel="error / tolerance", yscale="log")
            draw_bound(axes[2], 1, "refused above")
            axes[2].legend(title="judged by", loc="upper left", bbox_to_anchor=(1, 1))
            if more is not None:
                more(axes[3])
        self.say(f"plot written to {path}")

    def status(self, enough: float, judged: str) -> int:
        """Print how the training ended, and return the exit status."""
        if self.stopped == "interrupted":
            self.say("interrupted: these are the results until then")
            return 130
        if self.stopped in ("refused", "diverged"):
            self.say(f"FAILED: {'an oracle refuses a gradient' if self.stopped == 'refused' else 'training diverged'}")
            return 1
        reached = f"held-out accuracy {self.accuracies[-1]:.1%}"
        if self.accuracies[-1] < enough:
            self.say(f"FAILED: {reached}, expected {enough:.0%} or more")
            return 1
        self.say(f"{judged} agreed at each of {len(self.losses)} epochs; {reached}")
        return 0


def train_judged(
    args: argparse.Namespace,
    record: Record,
    network: Sequential,
    loss: Any,
    optimizer: SGD,
    judge: Callable[[Arrays, np.ndarray, np.ndarray], dict[str, float]],
) -> None:
    """Train on the digits; after every epoch judge a mini-batch, and record and print the epoch.

    Args:
        args: the options of the command line.
        record: where the epochs are kept.
        network, loss, optimizer: what is trained.
        judge: ``judge(params, x, target)`` returns the worst error by oracle, or raises `oracles.Disagreement`.
    """
    rng = np.random.default_rng(args.seed)
    (x, target), (held_x, held_target) = digits(rng)
    with record.recording(args.epochs) as keep:

        def after_epoch(epoch: Progress) -> bool:
            rows = np.random.default_rng((args.seed, epoch.epoch)).permutation(len(x))[: args.judge_rows]
            try:
                worst = judge(epoch.params, x[rows], target[rows])
            except oracles.Disagreement as disagreement:
                record.stopped = "refused"
                record.say(str(disagreement))
                return True
            y, _ = network.forward(epoch.params, held_x)
            keep(epoch.loss, float(np.mean(y.argmax(axis=1) == held_target)), worst)
            return False

        result = fit(
            network, loss, network.init(rng), x, target, optimizer,
            epochs=args.epochs, batch_size=args.batch, rng=rng, callback=after_epoch,
        )  # fmt: skip
    if record.stopped != "refused":
        record.stopped = result.stopped


@contextmanager
def figure_in(path: Path, title: str, count: int) -> Iterator[Any]:
    """Give ``count`` axes in a row, and write the figure as a PNG that is whole or absent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, count, figsize=(1 + 4 * count, 4), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    try:
        yield axes
        for each in axes:
            if each.get_xlabel() == "epoch":
                each.xaxis.get_major_locator().set_params(integer=True)
                each.grid(alpha=0.3)
            if each.get_yscale() == "log":
                each.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                each.yaxis.set_major_formatter("{x:g}")
                each.yaxis.set_minor_formatter(ticker.NullFormatter())
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=120)
    finally:
        pyplot.close(figure)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(image.getvalue())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def draw_bound(axes: Any, value: float, meaning: str, *, above: bool = True) -> None:
    """Draw a bound as a line, with its meaning on the side that is out of bounds, and room for it there."""
    low, high = axes.get_ylim()
    axes.set_ylim(low if above else min(low, value - 0.1 * (high - value)), max(high, 4 * value) if above else high)
    axes.axhline(value, color="C3", linestyle="--", linewidth=1)
    offset, side = (3, "bottom") if above else (-3, "top")
    axes.annotate(
        meaning, (1, value), (-4, offset), xycoords=("axes fraction", "data"), textcoords="offset points",
        color="C3", ha="right", va=side,
    )  # fmt: skip


def arguments(
    description: str, argv: Sequence[str] | None, *, batch: int, judge_rows: int, seeds: str, plot: str
) -> argparse.Namespace:
    """Parse the options; each training has its own defaults."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    for option, default, least, metavar, meaning in (
        ("--epochs", 10, 1, "N", "times through the training images"),
        ("--batch", batch, 1, "N", "images in a step"),
        ("--judge-rows", judge_rows, 1, "N", "images in the mini-batch that is judged"),
        ("--seed", 0, 0, "S", f"of {seeds}"),
    ):
        parser.add_argument(
            option, type=_at_least(least), default=default, metavar=metavar, help=f"{meaning} (default: {default})"
        )
    parser.add_argument("--plot", type=Path, default=Path(plot), metavar="FILE", help=f"a PNG (default: {plot})")
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
