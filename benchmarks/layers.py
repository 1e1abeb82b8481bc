"""Time forward and backward of manual_bp's layers and losses next to torch's, small and large."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import manual_bp  # noqa: E402
from benchmarks.layers_table import TABLE, Bench  # noqa: E402
from benchmarks.shared import Call, Row, measure, positive_count  # noqa: E402
from manual_bp.protocol import Array, Params, as_tuple, inputs_of  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402

GUIDE = """\
Each layer runs forward, and backward by a cotangent drawn beforehand, through the public API, validation on; torch
runs the same eagerly, torch.autograd.grad by the floating inputs and all parameters. Their outputs are first
compared. In every round each runs, in random order, as often as manual_bp runs in 10 ms; a ratio is its time over
torch's, the median over the rounds. Processor time, one thread throughout: other processes do not count.

examples:
  python benchmarks/layers.py                       every layer that there is, some minutes
  python benchmarks/layers.py Conv2d LSTM --quick   two of them, few rounds
  python benchmarks/layers.py --json out.json       the figures, for a machine"""


def calls(bench: Bench, dtype: str) -> dict[str, Call]:
    """Return the calls to time, manual_bp's and torch's, on the same numbers."""
    rng, layer = np.random.default_rng(0), bench.make(manual_bp)
    inputs = [rng.standard_normal(s) if isinstance(s, tuple) else s for s in bench.inputs]
    inputs = [a.astype(dtype) if a.dtype.kind == "f" else a for a in inputs]
    params = layer.init(rng, dtype) if hasattr(layer, "init") else {}
    leaves = {n: torch.tensor(a, requires_grad=True) for n, a in params.items()}
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    moving = [t for t in (*tensors, *leaves.values()) if t.requires_grad]
    y = as_tuple(bench.torch(leaves, *tensors))
    deltas = [rng.standard_normal(tuple(part.shape)).astype(dtype) for part in y]
    seeds = [torch.tensor(d) for d in deltas]

    def torch_call() -> object:
        y = as_tuple(bench.torch(leaves, *tensors))
        return y, torch.autograd.grad(y, moving, seeds, allow_unused=True)

    return {"ours": manual_call(layer, params, inputs, deltas), "torch": torch_call}


def manual_call(layer: Any, params: Params, inputs: list[Array], deltas: list[Array]) -> Call:
    if not hasattr(layer, "init"):

        def loss() -> object:
            value, cache = layer.forward(*inputs)
            return (value,), layer.backward(cache, deltas[0])

        return loss
    z = tuple(inputs) if len(inputs_of(layer)) > 1 else inputs[0]
    states = len(as_tuple(layer.forward(params, z)[0])) - len(deltas)  # outputs that torch keeps to itself
    delta = (*deltas, *(np.zeros_like(a) for a in inputs[len(inputs) - states :])) if states else tuple(deltas)

    def call() -> object:
        y, cache = layer.forward(params, z)
        return as_tuple(y), layer.backward(cache, delta if len(delta) > 1 else delta[0])

    return call


def agree(contestants: dict[str, Call], dtype: str) -> None:
    """Assert that both compute the same outputs."""
    for ours, expected in zip(*(contestants[name]()[0] for name in ("ours", "torch")), strict=False):
        reference = expected.detach().numpy()
        assert np.linalg.norm(ours - reference) <= np.sqrt(np.finfo(dtype).eps) * np.linalg.norm(reference), (
            "not the same"
        )


def rows(names: list[str], rounds: int) -> Iterator[Row]:
    for name in names or TABLE:
        for bench in TABLE[name] if hasattr(manual_bp, name) else ():
            for dtype in ("float32", "float64"):
                contestants = calls(bench, dtype)
                agree(contestants, dtype)
                results = measure(contestants, "ours", rounds, time.process_time)
                yield {
                    "layer": name,
                    "inputs": [list(s) if isinstance(s, tuple) else list(s.shape) for s in bench.inputs],
                    "dtype": dtype,
                    "microseconds": {n: 1e6 * statistics.median(r[n] for r in results) for n in results[0]},
                    "ratio": statistics.median(r["ours"] / r["torch"] for r in results),
                }


def line(row: Row) -> str:
    shapes = " ".join("x".join(map(str, shape)) or "()" for shape in row["inputs"])
    took = row["microseconds"]
    figures = f"{took['ours']:>10.0f}{took['torch']:>10.0f}{row['ratio']:>8.2f}"
    return f"{row['layer']:<28} {shapes[:34]:<34} {row['dtype']:<8}{figures}"


def known(name: str) -> str:
    if name not in TABLE:
        raise argparse.ArgumentTypeError(f"unknown layer {name}; known are {', '.join(TABLE)}")
    return name


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layers", nargs="*", type=known, help="names; all that manual_bp has by default")
    parser.add_argument("--rounds", type=positive_count, help="rounds for each size and dtype (default 15)")
    parser.add_argument("--quick", action="store_true", help="five rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, whole or not at all")
    args = parser.parse_args()
    rounds = args.rounds or (5 if args.quick else 15)
    torch.set_num_threads(1)
    print(f"{'layer':<28} {'inputs':<34} dtype      ours us  torch us / torch")
    report = []
    for row in rows(args.layers, rounds):
        print(line(row), flush=True)
        report.append(row)
    if args.json:
        figures = {"torch": torch.__version__, "numpy": np.__version__, "rounds": rounds, "layers": report}
        write_atomically(args.json, json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
