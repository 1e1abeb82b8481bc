"""Show how δ flows back through a network of sigmoids while it is trained on digits, every gradient judged.

    python examples/flow.py --epochs 10 --plot flow.png

Four linear layers with sigmoids between them. After each epoch a mini-batch of real images goes through the network.
PyTorch judges every δ^l, every ∂L/∂W^l and every ∂L/∂b^l. The plot has a line for each layer: the size of δ^l where it
leaves the layer on the way back, the size of ∂L/∂W^l, and the worst error of that layer's gradients in units of the
tolerance. A sigmoid has a slope of at most 1/4: in the first epochs, δ^l gets smaller with each layer on the way back.

Exit status: 0 if PyTorch agreed at each epoch, 1 if not, 2 for wrong usage, 130 if interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from digits_training import Record, arguments, draw_bound, figure_in, network_rule, point_of, train_judged
from rich.console import Console

import oracles
from manual_bp import SGD, Linear, Sequential, Sigmoid, SoftmaxCrossEntropy, deltas

Tensor: TypeAlias = Any  # of torch, which this file does not import
WIDTHS = 64, 32, 32, 32, 10
NETWORK = Sequential(
    Linear(64, 32), Sigmoid(), Linear(32, 32), Sigmoid(), Linear(32, 32), Sigmoid(), Linear(32, 10)
)  # fmt: skip
LOSS = SoftmaxCrossEntropy("mean")
LEARNING_RATE = 1.0
LINEAR = [index for index, layer in enumerate(NETWORK.layers) if isinstance(layer, Linear)]


def torch_reference(target: Tensor, **p: Tensor) -> Tensor:
    """Return the same loss by torch's functions; autograd computes the gradients."""
    import torch
    from torch.nn.functional import cross_entropy, linear

    z = p["z.1"]
    for index in range(len(NETWORK.layers)):
        z = linear(z, p[f"{index}.W"].T, p[f"{index}.b"][0]) if index in LINEAR else torch.sigmoid(z)
        z = z + p[f"z.{index + 2}"]
    return cross_entropy(z, target)


SUBJECT = network_rule(NETWORK, LOSS, "-".join(map(str, WIDTHS)))
ORACLE = oracles.torch_autograd(torch_reference)


def mean_size(array: np.ndarray) -> float:
    """Return the root mean square of the entries."""
    return float(np.sqrt(np.mean(array * array)))


def sizes(params: dict[str, np.ndarray], x: np.ndarray, target: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the sizes of δ^l where it leaves each linear layer, and of ∂L/∂W^l, first layer first."""
    y, cache = NETWORK.forward(params, x)
    delta_n = LOSS.backward(LOSS.forward(y, target)[1])
    every, (_, grads) = deltas(NETWORK, params, x, delta_n), NETWORK.backward(cache, delta_n)
    return [mean_size(every[i]) for i in LINEAR], [mean_size(grads[f"{i}.W"]) for i in LINEAR]


def judged(params: dict[str, np.ndarray], x: np.ndarray, target: np.ndarray) -> list[float]:
    """Return the worst error / tolerance of δ^l, ∂L/∂W^l and ∂L/∂b^l, for each linear layer.

    Raises:
        oracles.Disagreement: where PyTorch refuses.
    """
    result = oracles.check(SUBJECT, point_of(NETWORK, params, x, target), [ORACLE], np.float64(1.0))
    ratios = {finding.quantity: finding.ratio for finding in result.findings}
    return [max(ratios[n] for n in (f"z.{i + 1}", f"{i}.W", f"{i}.b")) for i in LINEAR]


def train(args: argparse.Namespace, console: Console) -> tuple[Record, list[tuple[list[float], ...]]]:
    """Train on the digits; return the record and, for each epoch, the sizes and errors of every layer."""
    record = Record(("torch",), console)
    flow: list[tuple[list[float], ...]] = []

    def judge(params: dict[str, np.ndarray], x: np.ndarray, target: np.ndarray) -> dict[str, float]:
        ratios = judged(params, x, target)
        flow.append((*sizes(params, x, target), ratios))
        return {"torch": max(ratios)}

    train_judged(args, record, NETWORK, LOSS, SGD(LEARNING_RATE), judge)
    return record, flow


def plot(args: argparse.Namespace, flow: Sequence[tuple[list[float], ...]]) -> None:
    """Draw a line for each layer: |δ^l|, |∂L/∂W^l| and error / tolerance over the epochs."""
    panels = (
        ("Size of δ$^l$ leaving each layer on the way back", "root mean square of δ$^l$"),
        ("Size of ∂L/∂W$^l$", "root mean square of ∂L/∂W$^l$"),
        ("Worst error of δ$^l$, ∂L/∂W$^l$, ∂L/∂b$^l$", "error / tolerance"),
    )
    title = f"Backpropagation through {SUBJECT.name} with sigmoids, on digits"
    with figure_in(args.plot, title, len(panels)) as axes:
        epochs = range(1, len(flow) + 1)
        for number, (each, (heading, label)) in enumerate(zip(axes, panels, strict=True)):
            for layer in range(len(LINEAR)):
                each.plot(epochs, [values[number][layer] for values in flow], marker=".", label=layer + 1)
            each.set(title=heading, xlabel="epoch", ylabel=label, yscale="log")
        draw_bound(axes[-1], 1, "refused above")
        axes[-1].legend(title="linear layer", loc="upper left", bbox_to_anchor=(1, 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print, plot; return the exit status."""
    args = arguments(__doc__ or "", argv, batch=16, judge_rows=8, seeds="split, weights and batches", plot="flow.png")
    record, flow = train(args, Console())
    if flow:
        plot(args, flow)
        record.say(f"plot written to {args.plot}")
    return record.status(0.0, "every gradient and every δ^l")


if __name__ == "__main__":
    sys.exit(main())
