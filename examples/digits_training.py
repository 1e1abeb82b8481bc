"""Shared parts of the trainings on digits: the images, the record of the epochs, the plot and the options."""

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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

HELD_OUT = 360
Images = tuple[np.ndarray, np.ndarray]


def digits(rng: np.random.Generator) -> tuple[Images, Images]:
    """Return images (N, 64) of grey levels 0 … 1 and their classes (N,), to train on and held out."""
    from sklearn.datasets import load_digits

    x, target = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    train, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    return (x[train] / 16, target[train]), (x[held_out] / 16, target[held_out])


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
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
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

    def plot(self, path: Path, enough: float, more: Callable[[Any], None] | None = None) -> None:
        """Write loss, accuracy and disagreement over the epochs, and more, as a PNG that is whole or absent."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        epochs, count = range(1, len(self.losses) + 1), 3 if more is None else 4
        figure, axes = pyplot.subplots(1, count, figsize=(4 + 3 * count, 4), layout="constrained")
        axes[0].plot(epochs, self.losses, marker=".")
        axes[0].set(title="loss", xlabel="epoch", yscale="log")
        axes[1].plot(epochs, [100 * share for share in self.accuracies], marker=".")
        axes[1].axhline(100 * enough, color="grey", linestyle=":")
        axes[1].set(title="held-out accuracy, %", xlabel="epoch")
        for name in self.oracles:
            axes[2].plot(epochs, [worst[name] for worst in self.disagreements], marker=".", label=name)
        axes[2].axhline(1, color="grey", linestyle=":")
        axes[2].set(title="worst error / tolerance", xlabel="epoch", yscale="log")
        axes[2].legend()
        if more is not None:
            more(axes[3])
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=120)
        pyplot.close(figure)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            scratch.write_bytes(image.getvalue())
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
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
