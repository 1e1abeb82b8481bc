"""Time forward and backward of five networks: manual_bp, torch, jax.jit, and bare matrix products."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

from benchmarks.shared import Call, Foreign, Row, measure  # noqa: E402
from manual_bp import Array, Layer, Linear, Params, ReLU, Sequential, SoftmaxCrossEntropy, value_and_grad  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402

GUIDE = """\
Each network is a ReLU MLP under softmax cross-entropy with class indices, mean over the batch. All do
the same work: the loss, every dW and db, every delta down to that of x. manual_bp is measured through the
public API, value_and_grad, with validation on; it computes the delta of x too, and drops it.
  torch   eager, torch.autograd.grad by all parameters and x
  jax     jax.jit of value_and_grad by all parameters and x, compiled before the clock starts
  gemm    NumPy's bare matrix products of the same shapes, zW, z'd and dW', and nothing else
In every round each contestant runs, in random order, as often as manual_bp runs in 10 ms. A ratio is
manual_bp's time over the contestant's, the median over the rounds.
One thread throughout. The targets hold for float32 and float64; a ratio above its target is marked with !.

examples:
  python benchmarks/network.py                    the whole table, a few minutes
  python benchmarks/network.py --quick            the three small networks, few rounds
  python benchmarks/network.py --json out.json    the figures, for a machine"""

# (batch, widths): the largest ratio that meets the target against a contestant
NETWORKS: dict[tuple[int, tuple[int, ...]], dict[str, float]] = {
    (1, (32,) * 4): {"torch": 0.4},
    (32, (128,) * 5): {"torch": 0.7},
    (128, (784, 256, 128, 10)): {"torch": 1.05},
    (256, (1024,) * 5): {"gemm": 1.10},
    (512, (2048,) * 4): {"gemm": 1.10},
}
RIVALS = ("torch", "jax", "gemm")


def manual_call(network: Sequential, params: Params, x: Array, target: Array) -> Call:
    loss = SoftmaxCrossEntropy()
    return lambda: value_and_grad(network, loss, params, x, target)


def torch_call(params: Params, x: Array, target: Array) -> Call:
    import torch

    torch.set_num_threads(1)
    leaves = [torch.tensor(value, requires_grad=True) for value in (*params.values(), x)]
    classes = torch.tensor(target)

    def call() -> object:
        *parameters, z = leaves
        for W, b in zip(parameters[::2], parameters[1::2], strict=True):
            z = torch.addmm(b, z if z is leaves[-1] else torch.relu(z), W)
        loss = torch.nn.functional.cross_entropy(z, classes)
        return loss.detach(), torch.autograd.grad(loss, leaves)

    return call


def jax_call(params: Params, x: Array, target: Array) -> Call:
    import jax

    jax.config.update("jax_enable_x64", True)
    pairs = [jax.numpy.asarray(value) for value in params.values()]
    data, classes = jax.numpy.asarray(x), jax.numpy.asarray(target)

    def loss(parameters: list[Foreign], z: Foreign) -> Foreign:
        for index in range(0, len(parameters), 2):
            z = (jax.nn.relu(z) if index else z) @ parameters[index] + parameters[index + 1]
        return -jax.numpy.mean(jax.nn.log_softmax(z)[jax.numpy.arange(len(classes)), classes])

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return lambda: jax.block_until_ready(compiled(pairs, data))


def gemm_call(params: Params, batch: int) -> Call:
    weights = [value for name, value in params.items() if name.endswith("W")]
    rng = np.random.default_rng(1)
    steps = [
        (W, rng.standard_normal((batch, len(W))).astype(W.dtype), rng.standard_normal((batch, W.shape[1])))
        for W in weights
    ]
    steps = [(W, z, delta.astype(W.dtype)) for W, z, delta in steps]

    def call() -> object:
        forward = [z @ W for W, z, _ in steps]
        return forward, [(z.T @ delta, delta @ W.T) for W, z, delta in reversed(steps)]

    return call


def contestants(batch: int, widths: tuple[int, ...], dtype: str) -> dict[str, Call]:
    rng = np.random.default_rng(0)
    layers: list[Layer] = []
    for n_in, n_out in pairwise(widths):
        layers += [Linear(n_in, n_out), ReLU()]
    network = Sequential(*layers[:-1])
    params = network.init(rng, dtype)
    x = rng.standard_normal((batch, widths[0])).astype(dtype)
    target = rng.integers(widths[-1], size=batch)
    calls = {
        "manual": manual_call(network, params, x, target),
        "torch": torch_call(params, x, target),
        "jax": jax_call(params, x, target),
        "gemm": gemm_call(params, batch),
    }
    by_manual, by_torch, by_jax = (float(calls[name]()[0]) for name in ("manual", "torch", "jax"))
    assert abs(by_manual - by_torch) + abs(by_manual - by_jax) < 1e-3 * abs(by_manual), (
        "the contestants compute different losses"
    )
    return calls


def summarize(batch: int, widths: tuple[int, ...], dtype: str, results: list[dict[str, float]]) -> Row:
    ratios = {name: statistics.median(r["manual"] / r[name] for r in results) for name in RIVALS}
    return {
        "batch": batch,
        "widths": widths,
        "dtype": dtype,
        "microseconds": {name: 1e6 * statistics.median(r[name] for r in results) for name in results[0]},
        "ratio": ratios,
        "target": NETWORKS[batch, widths],
        "met": all(ratios[name] <= target for name, target in NETWORKS[batch, widths].items()),
    }


def rows(args: argparse.Namespace) -> Iterator[Row]:
    for batch, widths in list(NETWORKS)[: 3 if args.quick else None]:
        for dtype in ("float32", "float64"):
            large = batch * widths[0] * widths[1] > 2**26
            rounds = max(3, args.rounds // 8) if large else args.rounds
            results = measure(contestants(batch, widths, dtype), "manual", rounds, time.perf_counter)
            yield summarize(batch, widths, dtype, results)


def line(row: Row) -> str:
    widths = "-".join(map(str, row["widths"]))
    cells = [f"{row['batch']:>5}  {widths:<25} {row['dtype']:<8}{row['microseconds']['manual']:>10.0f}"]
    for name in RIVALS:
        target = row["target"].get(name)
        mark = "" if target is None else f" <={target:.2f}" + ("!" if row["ratio"][name] > target else " ")
        cells.append(f"{row['ratio'][name]:>6.2f}{mark:<8}")
    return "".join(cells).rstrip()


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive number of rounds, got {text!r}")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, help="rounds for each network, an eighth for large (default 80)")
    parser.add_argument("--quick", action="store_true", help="the three small networks, 15 rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, whole or not at all")
    args = parser.parse_args()
    args.rounds = args.rounds or (15 if args.quick else 80)
    print("batch  widths                    dtype        ours us   / torch       / jax         / gemm")
    rows_printed = []
    for row in rows(args):
        print(line(row), flush=True)
        rows_printed.append(row)
    if args.json:
        report = {"numpy": np.__version__, "rounds": args.rounds, "networks": rows_printed}
        write_atomically(args.json, json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
