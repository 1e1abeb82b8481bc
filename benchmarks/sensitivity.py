"""Find the smallest planted error that is refused: by this judge, by gradcheck, by check_grads and by assert_close."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

from benchmarks.hard_inputs import drawn_cases  # noqa: E402
from benchmarks.peers import BY, OURS, PEERS, Refuses, by_judge  # noqa: E402
from benchmarks.sensitivity_table import AIMS, REGIMES, misses, summary, table  # noqa: E402
from benchmarks.shared import Row, positive, positive_count, prepare_process  # noqa: E402
from oracles.constants import MAGNITUDES, POSITIONS  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402
from oracles.registry import Case, Entry, entries  # noqa: E402
from oracles.rule import with_dtype  # noqa: E402
from oracles.strategies import LAYOUTS, SPECIALS, Point, point_at  # noqa: E402
from oracles.verdict import Result, Verdict  # noqa: E402

GUIDE = """\
Into one random entry of one cotangent of manual_bp's layer, neither 0 nor subnormal, a relative error e is
planted. Each tool is asked, by bisection over half-decades from 1e-17 to 1, for the smallest e that it refuses:
  this project  the judge with torch and JAX: refused at all, and refused as wrong rather than as unstable
  slow, fast    torch.autograd.gradcheck as it comes, and fast, of an autograd.Function around the same backward
  check_grads   jax.test_util.check_grads(order=1, modes=["rev"]) of a jax.custom_vjp whose bwd plants the error
                into the reference's own vjp; close  torch.testing.assert_close as it comes, to torch's gradient
Each has the median over the examples, and the e that is refused in at least 99 % of them; >1 where not even an entry
twice too large is. gradcheck knows float64 alone. Points: standard normal values, then the draws of a search (special
values, magnitudes 1e-3 to 1e4). A tool that refuses the gradient with nothing planted is not asked there: that share
is printed. Each tool stops after --seconds in each row; n is how many examples this project saw, the JSON has the
others'.
A figure of this project that misses its aim is marked with !."""

GRID = tuple(10.0 ** (k / 2) for k in range(-34, 1))
POOL = 40  # configurations of each layer
DTYPES = ("float64", "float32")
# The peers see one example in so many.
EVERY = {OURS: 1, "slow": 2, "fast": 2, "check_grads": 10, "close": 1}


@lru_cache(maxsize=4)
def layers(seed: int) -> dict[str, tuple[Entry, list[Case]]]:
    """Return every layer that has a gradient, with configurations that a seed determines."""
    return {entry.name: (entry, drawn_cases(entry, POOL, seed)) for entry in entries() if entry.pullback}


def drawn_point(case: Case, dtype: str, regime: str, rng: np.random.Generator) -> Point:
    """Return a point of one of the regimes."""
    seed = int(rng.integers(1, 2**32))
    if regime == "normal":
        return point_at(case.subject, case.primals, dtype, seed=seed)
    overrides = rng.integers(SPECIALS * POSITIONS, size=rng.integers(0, 5)).tolist()
    layout, magnitude = str(rng.choice(LAYOUTS)), float(rng.choice(MAGNITUDES))
    return point_at(
        case.subject, case.primals, dtype, seed=seed, magnitude=magnitude, overrides=overrides, layout=layout
    )


def chosen_entry(case: Case, point: Point, rng: np.random.Generator) -> tuple[str, tuple[int, ...]] | None:
    """Return a random entry of a random cotangent that neither the subject nor JAX in float64 says is 0.

    Nor one below the normal range, where a small relative error rounds away.
    """
    _, pullback = case.subject(**point.primals)
    _, exactly = case.oracles(["jax"])[0](**with_dtype(dict(point.primals), np.float64))
    exact = exactly(with_dtype(point.delta, np.float64))
    least = float(np.finfo(point.dtype).smallest_normal)
    smallest_errors = {
        name: np.argwhere((np.abs(g) >= least) & np.isfinite(g) & (np.asarray(exact[name]) != 0))
        for name, g in pullback(point.delta).items()
    }
    names = [name for name, indices in smallest_errors.items() if len(indices)]
    if not names:
        return None
    name = str(rng.choice(names))
    return name, tuple(int(i) for i in rng.choice(smallest_errors[name]))


def smallest(refuses: Refuses) -> float:
    """Return the smallest error of the grid that is refused, by bisection; infinity where not even the largest is."""
    if not refuses(GRID[-1]):
        return math.inf
    low, high = -1, len(GRID) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refuses(GRID[middle]) else (middle, high)
    return GRID[high]


def measure(layer: str, dtype: str, regime: str, examples: int, seed: int, seconds: float) -> Row:
    """Find the smallest error that each tool refuses, at points of one layer."""
    _, pool = layers(seed)[layer]
    smallest_errors: dict[str, list[float]] = {tool: [] for tool in (OURS, "wrong", *PEERS)}
    asked, refused_right = dict.fromkeys((OURS, *PEERS), 0), dict.fromkeys((OURS, *PEERS), 0)
    spent = dict.fromkeys((OURS, *PEERS), 0.0)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = number = 0
        while count < examples and number < 4 * examples and spent[OURS] < seconds:
            rng = np.random.default_rng((seed, number, sorted(REGIMES).index(regime)))
            number += 1
            case = pool[int(rng.integers(len(pool)))]
            point = drawn_point(case, dtype, regime, rng)
            entry = chosen_entry(case, point, rng)
            if entry is None:
                continue
            for tool in (OURS, *PEERS):
                if count % EVERY[tool] or spent[tool] > seconds:
                    continue
                started = time.perf_counter()
                if tool == OURS:
                    says = by_judge(case, point, *entry)
                    refuses: Refuses | None = lambda error, says=says: says(error).refuses  # noqa: E731
                else:
                    refuses = BY[tool](case, point, *entry)
                if refuses is None:
                    continue
                asked[tool] += 1
                if refuses(0.0):
                    refused_right[tool] += 1
                else:
                    smallest_errors[tool].append(smallest(refuses))
                    if tool == OURS:
                        smallest_errors["wrong"].append(smallest(lambda error, says=says: _wrong(says(error))))
                spent[tool] += time.perf_counter() - started
            count += 1
    jax.clear_caches()  # what was compiled for one layer serves no other
    return {
        "layer": layer,
        "dtype": dtype,
        "regime": regime,
        "asked": asked,
        "refused_right": refused_right,
        "seconds": spent,
        "median": {tool: _quantile(errors, 0.5) for tool, errors in smallest_errors.items()},
        "in_99_percent": {tool: _quantile(errors, 0.99) for tool, errors in smallest_errors.items()},
    }


def _wrong(result: Result) -> bool:
    return any(f.verdict is Verdict.WRONG for f in result.findings)


def _quantile(errors: Sequence[float], share: float) -> float | None:
    """Return the smallest error found that is refused in at least this share of the examples."""
    return sorted(errors)[math.ceil(share * len(errors)) - 1] if errors else None


def plain(value: Any) -> Any:
    """Return what JSON can hold: infinity, for an error that nothing reveals, becomes a string."""
    if isinstance(value, Mapping):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return ">1" if isinstance(value, float) and math.isinf(value) else value


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, whole or not at all")
    parser.add_argument(
        "--examples", type=positive_count, default=100, metavar="N", help="for each layer, dtype and regime (100)"
    )
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="these layers alone")
    parser.add_argument("--seconds", type=positive, default=30.0, help="for each tool in each row (30)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all draws (0)")
    parser.add_argument("--jobs", type=positive_count, default=2, metavar="J", help="processes (2)")
    args = parser.parse_args(argv)
    if args.json and not Path(args.json).absolute().parent.is_dir():
        parser.error(f"--json: the folder of {args.json} does not exist")
    try:
        names = [entry.name for entry in entries(args.layers or ()) if entry.pullback]
    except ValueError as error:
        parser.error(str(error))
    console = Console(width=None if sys.stdout.isatty() else 100)
    rows, interrupted = run_all(names, args, console)
    for regime in REGIMES:
        console.print("\n".join([*table(rows, regime), ""]), markup=False, highlight=False, soft_wrap=True)
    console.print("\n".join(summary(rows)), markup=False, highlight=False, soft_wrap=True)
    if args.json:
        versions = {"torch": torch.__version__, "jax": jax.__version__, "numpy": np.__version__}
        aims = {dtype: {"median": median, "in_99_percent": most} for dtype, (median, most) in AIMS.items()}
        report = {
            "versions": versions, "seed": args.seed, "examples": args.examples, "interrupted": interrupted,
            "aims": aims, "rows": [{**row, "missed": misses(row)} for row in rows],
        }  # fmt: skip
        write_atomically(args.json, json.dumps(plain(report), indent=2) + "\n")
    return 130 if interrupted else 0


def run_all(names: Sequence[str], args: argparse.Namespace, console: Console) -> tuple[list[Row], bool]:
    """Measure every layer, dtype and regime in several processes; Ctrl-C keeps what there is."""
    planned = [(name, dtype, regime) for regime in REGIMES for name in names for dtype in DTYPES]
    rows: list[Row] = []
    interrupted = False
    executor = ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), initializer=prepare_process)
    columns = TextColumn("{task.description:<28}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn()
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("layers", total=len(planned))
            running = [executor.submit(measure, *what, args.examples, args.seed, args.seconds) for what in planned]
            for future, what in zip(running, planned, strict=True):
                progress.update(task, description=" ".join(what))
                rows.append(future.result())
                progress.advance(task)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        executor.shutdown(wait=not interrupted, cancel_futures=True)
    return rows, interrupted


if __name__ == "__main__":
    sys.exit(main())
