"""Measure how long ``oracles check`` takes on a small subject, from the shell on, and the imports that it needs."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, where "oracles" would be a benchmark

from benchmarks.shared import Row, positive_count  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402

GUIDE = """\
The subject is a pair in NumPy of 12 inputs; the references are a function of the framework's own operations, and its
SiLU. "seconds" is the median of the wall-clock time, and "cpu" that of the time of a core, which says more on a busy
machine. The last rows import a package and do nothing.
"""

SUBJECT = """\
import numpy as np


def forward(z):
    a = 1 / (1 + np.exp(-z))
    return z * a, (z, a)


def backward(cache, delta):
    z, a = cache
    return {"z": delta * (a + z * a * (1 - a))}
"""
CHECK = ("-m", "oracles", "check", "silu.py:forward,backward", "--shapes", "z=4,3")
COMMANDS = {
    "no reference": CHECK,
    "torch, own operations": (*CHECK, "--against", "torch:lambda z: z / (1 + torch.exp(-z))"),
    "torch, SiLU": (*CHECK, "--against", "torch:torch.nn.functional.silu"),
    "jax, own operations": (*CHECK, "--against", "jax:lambda z: z / (1 + jax.numpy.exp(-z))"),
    "import numpy": ("-c", "import numpy"),
    "import torch": ("-c", "import torch"),
    "import jax": ("-c", "import jax, jax.numpy"),
}


def run(arguments: Sequence[str], folder: str) -> tuple[float, float]:
    """Run Python, and return the seconds that it took: by the clock, and of a core."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(rounds: int, only: str) -> list[Row]:
    """Run every command once in each round, after one that fills the caches of the file system."""
    commands = {name: arguments for name, arguments in COMMANDS.items() if only in name}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "silu.py").write_text(SUBJECT)
        for arguments in commands.values():
            run(arguments, folder)
        for _ in range(rounds):
            for name, arguments in commands.items():
                times[name].append(run(arguments, folder))
    return [
        {"command": name, "seconds": median(wall for wall, _ in each), "cpu": median(cpu for _, cpu in each)}
        for name, each in times.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, whole or not at all")
    parser.add_argument("--only", metavar="TEXT", default="", help="the commands whose name has TEXT")
    parser.add_argument("--rounds", metavar="N", type=positive_count, default=5, help="runs of each command (5)")
    args = parser.parse_args(argv)
    rows = measure(args.rounds, args.only)
    print(f"{'oracles check':<24}{'seconds':>9}{'cpu':>7}")
    for row in rows:
        print(f"{row['command']:<24}{row['seconds']:>9.2f}{row['cpu']:>7.2f}")
    if args.json:
        write_atomically(args.json, json.dumps({"rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
