"""Train a convolutional network on scikit-learn's digits by hand, every gradient judged at every epoch.

    python examples/cnn_digits.py --epochs 10 --plot cnn.png

Two blocks of convolution, batch normalization, ReLU and max pooling, then dropout and a linear layer, by Adam. The
running statistics and the generator of dropout are values that go in and come out: nothing is hidden in the network.

After each epoch a mini-batch of real images goes through the network in training, and PyTorch and JAX judge its loss,
the next running statistics, and the gradient of all that by every parameter, every pixel and every running statistic.
What is printed is the worst disagreement in units of the tolerance at that very point: up to 1 is rounding.

Exit status: 0 if both agreed and the held-out accuracy reached 97 %, 1 if not, 2 for wrong usage, 130 if interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from digits_training import Record, arguments, digits
from rich.console import Console

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

Tensor: TypeAlias = Any  # of torch or of JAX, neither of which this file imports
NETWORK = Sequential(
    Conv2d(1, 16, 3, padding="same"), BatchNorm(16), ReLU(), MaxPool2d(2),
    Conv2d(16, 32, 3, padding="same"), BatchNorm(32), ReLU(), MaxPool2d(2),
    Flatten(), Dropout(0.25), Linear(128, 10),
)  # fmt: skip
EVALUATED = Sequential(*(replace(x, training=False) if hasattr(x, "training") else x for x in NETWORK.layers))
LOSS = SoftmaxCrossEntropy("mean")
OPTIMIZER = Adam(3e-3)
STATE = NETWORK.outputs[1:]  # "1.running_mean", "1.running_var", "5.running_mean", "5.running_var"
ENOUGH = 0.97

Arrays = dict[str, np.ndarray]


def forward(params: Arrays, state: Arrays, rng: np.random.Generator, x: np.ndarray, target: np.ndarray) -> Any:
    """Return the loss and the next running statistics, and what `backward` needs to know."""
    side_inputs = [rng if name.endswith(".rng") else state[name] for name in NETWORK.inputs[1:]]
    (y, *moved), cache = NETWORK.forward(params, (x, *side_inputs))
    value, loss_cache = LOSS.forward(y, target)
    return (value, *moved), (cache, loss_cache)


def backward(cache: Any, delta: tuple[Any, ...]) -> tuple[Arrays, Arrays]:
    """Return the gradients by the inputs and by the parameters, given those by the loss and by the next state."""
    network_cache, loss_cache = cache
    of_inputs, grads = NETWORK.backward(network_cache, (LOSS.backward(loss_cache, delta[0]), *delta[1:]))
    return dict(zip(NETWORK.inputs, of_inputs, strict=True)), grads


def subject() -> oracles.Rule:
    """Return the hand-written network as what is judged; its primals are the inputs, parameters and the target."""

    def judged_forward(target: np.ndarray, survives: np.ndarray, **primals: np.ndarray) -> Any:
        state = {name: primals.pop(name) for name in STATE}
        rng, z = np.random.default_rng(int(primals.pop("9.rng"))), primals.pop("z")
        return forward(primals, state, rng, z, target)

    def judged_backward(cache: Any, delta: Any) -> Arrays:
        of_inputs, grads = backward(cache, delta)
        return of_inputs | grads

    return oracles.manual(judged_forward, judged_backward, name="convolutional network")


# The references know the entries that dropout keeps, `survives`, not the seed: frameworks draw other numbers from it.
def torch_reference(z: Tensor, target: Tensor, survives: Tensor, **p: Tensor) -> Tensor:
    """Return the same primals by torch's functions; autograd computes the gradients."""
    import torch
    from torch.nn import functional as F

    moved = []
    for i in (1, 5):  # where the batch normalizations are
        z = F.conv2d(z, p[f"{i - 1}.W"], p[f"{i - 1}.b"], padding="same")
        mean, var = z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=True)
        moved += [torch.lerp(p[f"{i}.running_mean"], mean, 0.1), torch.lerp(p[f"{i}.running_var"], var, 0.1)]
        z = F.max_pool2d(F.relu(F.batch_norm(z, None, None, p[f"{i}.gamma"], p[f"{i}.beta"], training=True)), 2)
    z = F.linear(z.flatten(1) * survives / 0.75, p["10.W"].T, p["10.b"][0])
    return F.cross_entropy(z, target), *moved


def jax_reference(z: Tensor, target: Tensor, survives: Tensor, **p: Tensor) -> Tensor:
    """Return the same primals by JAX's functions."""
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
    z = jnp.einsum("ni,ij->nj", z.reshape(z.shape[0], 128) * survives / 0.75, p["10.W"]) + p["10.b"]
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
    survives = np.random.default_rng(seed).random((len(x), 128), np.float32) >= 0.25
    point = {"z": x, "target": target, "survives": survives, **state, "9.rng": np.array(seed), **params}
    rng = np.random.default_rng(seed)
    delta = np.float64(1.0), *(rng.standard_normal(a.shape) for a in state.values())
    result = oracles.check(SUBJECT, point, ORACLES, delta)
    return {name: max(f.ratio for f in result.findings if f.oracle == name) for name in NAMES}


@dataclass
class Model:
    """The parameters, the optimizer's state and the running statistics during training."""

    params: Arrays
    state: Arrays


def train(args: argparse.Namespace, console: Console) -> tuple[Record, Model]:
    """Train on the digits, judging and printing after every epoch."""
    rng = np.random.default_rng(args.seed)
    (x, target), held_out = ((images.reshape(-1, 1, 8, 8), classes) for images, classes in digits(rng))
    channels = {name: NETWORK.layers[int(name.split(".")[0])].n for name in STATE}
    state = {name: (np.zeros if "mean" in name else np.ones)(n) for name, n in channels.items()}
    record, model = Record(NAMES, console), Model(NETWORK.init(rng), state)
    moments = OPTIMIZER.init(model.params)
    with record.recording(args.epochs) as keep:
        try:
            for epoch in range(1, args.epochs + 1):
                loss = 0.0
                for rows in minibatches(len(x), args.batch, rng):
                    (value, *moved), cache = forward(model.params, model.state, rng, x[rows], target[rows])
                    _, grads = backward(cache, (1.0, *map(np.zeros_like, moved)))
                    model.params, moments = OPTIMIZER.step(model.params, grads, moments)
                    model.state = dict(zip(STATE, moved, strict=True))
                    loss += float(value) * len(rows) / len(x)
                rows = np.random.default_rng((args.seed, epoch)).permutation(len(x))[: args.judge_rows]
                keep(loss, accuracy(model, *held_out), judged(model.params, model.state, x[rows], target[rows], epoch))
        except oracles.Disagreement as disagreement:
            record.stopped = "refused"
            record.say(str(disagreement))
        except KeyboardInterrupt:
            record.stopped = "interrupted"
    return record, model


def accuracy(model: Model, x: np.ndarray, target: np.ndarray) -> float:
    """Return the share of images that the network, in evaluation, puts into their class."""
    y, _ = EVALUATED.forward(model.params, (x, *model.state.values()))
    return float(np.mean(y.argmax(axis=1) == target))


def show_kernels(model: Model, axes: Any) -> None:
    """Draw the kernels of the first convolution, four by four."""
    kernels = np.pad(model.params["0.W"][:, 0], ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    axes.imshow(kernels.reshape(4, 4, 4, 4).swapaxes(1, 2).reshape(16, 16)[:-1, :-1], cmap="gray")
    axes.set(title="The 16 kernels of the first convolution", xlabel="3 × 3 weights each", xticks=(), yticks=())


def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print, plot; return the exit status."""
    seeds = "split, weights, batches and dropout"
    args = arguments(__doc__ or "", argv, batch=32, judge_rows=8, seeds=seeds, plot="cnn.png")
    record, model = train(args, Console())
    if record.losses:
        title = "A convolutional network on 1,437 images of digits, trained by hand-written backpropagation"
        record.plot(args.plot, title, ENOUGH, lambda axes: show_kernels(model, axes))
    return record.status(ENOUGH, "every gradient")


if __name__ == "__main__":
    sys.exit(main())
