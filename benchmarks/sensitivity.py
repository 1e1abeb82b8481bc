"""Find the smallest planted error that is refused: by this judge, by gradcheck, by check_grads and by assert_close."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.threads import pin_threads  # noqa: E402

pin_threads()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from jax.test_util import check_grads  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

from benchmarks.false_alarms import drawn_cases, positive_count, prepare_process  # noqa: E402
from oracles.files import write_atomically  # noqa: E402
from oracles.judge import judge  # noqa: E402
from oracles.registry import Case, Entry, entries  # noqa: E402
from oracles.rule import Array, Cotangents, Rule, called, is_differentiable, with_dtype  # noqa: E402
from oracles.strategies import LAYOUTS, MAGNITUDES, SPECIALS, Point, point_at  # noqa: E402
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
REGIMES = {"normal": "standard normal values, magnitude 1", "mixed": "the draws of a search"}
DTYPES = ("float64", "float32")
# The aims of this project by dtype: for the median over the examples, and for 99 % of them.
AIMS = {"float64": (1e-13, 1e-11), "float32": (1e-5, 1e-5)}
OURS, PEERS = "this project", ("slow", "fast", "check_grads", "close")
# The peers see one example in so many.
EVERY = {OURS: 1, "slow": 2, "fast": 2, "check_grads": 10, "close": 1}

Refuses = Callable[[float], bool]


@lru_cache(maxsize=4)
def layers(seed: int) -> dict[str, tuple[Entry, list[Case]]]:
    """Return every layer that has a gradient, with configurations that a seed determines."""
    return {entry.name: (entry, drawn_cases(entry, POOL, seed)) for entry in entries() if entry.pullback}


def drawn_point(case: Case, dtype: str, regime: str, rng: np.random.Generator) -> Point:
    """Return a point of one of the regimes."""
    seed = int(rng.integers(1, 2**32))
    if regime == "normal":
        return point_at(case.subject, case.primals, dtype, seed=seed)
    overrides = rng.integers(SPECIALS * 2**16, size=rng.integers(0, 5)).tolist()
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
    want = exactly(with_dtype(point.delta, np.float64))
    least = float(np.finfo(point.dtype).smallest_normal)
    found = {
        name: np.argwhere((np.abs(g) >= least) & np.isfinite(g) & (np.asarray(want[name]) != 0))
        for name, g in pullback(point.delta).items()
    }
    names = [name for name, indices in found.items() if len(indices)]
    if not names:
        return None
    name = str(rng.choice(names))
    return name, tuple(int(i) for i in rng.choice(found[name]))


def planted(rule: Rule, name: str, index: tuple[int, ...], error: float) -> Rule:
    """Return a subject whose cotangent of one name is off by a relative error in one entry."""

    def evaluate(**primals: Array) -> tuple[Any, Callable[[Any], Cotangents]]:
        y, pullback = rule(**primals)

        def off(delta: Any) -> Cotangents:
            cotangents = dict(pullback(delta))
            g = np.array(cotangents[name])
            g[index] = np.float64(g[index]) * (1 + error)
            return {**cotangents, name: g}

        return y, off

    return replace(rule, evaluate=evaluate)


def smallest(refuses: Refuses) -> float:
    """Return the smallest error of the grid that is refused, by bisection; infinity where not even the largest is."""
    if not refuses(GRID[-1]):
        return math.inf
    low, high = -1, len(GRID) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refuses(GRID[middle]) else (middle, high)
    return GRID[high]


def by_judge(case: Case, point: Point, name: str, index: tuple[int, ...]) -> Callable[[float], Result]:
    """Return what this project says of an error."""
    oracles = case.oracles()

    @cache
    def says(error: float) -> Result:
        subject = planted(case.subject, name, index, error)
        return judge(subject, point.primals, point.delta, oracles, kinks=case.kinks)

    return says


class HandWritten(torch.autograd.Function):
    """What one writes around a hand-written backward to have gradcheck judge it."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, names: tuple[str, ...], fixed: Mapping[str, Array], *leaves: Any) -> Any:
        """Keep the pullback."""
        arrays = dict(zip(names, (leaf.detach().numpy() for leaf in leaves), strict=True))
        y, ctx.pullback = rule(**arrays, **fixed)
        ctx.names = names
        return torch.from_numpy(np.array(y))

    @staticmethod
    def backward(ctx: Any, *delta: Any) -> Any:
        """Return the gradients of the leaves, after None for what is no tensor."""
        cotangents = ctx.pullback(delta[0].contiguous().numpy())
        return None, None, None, *(torch.from_numpy(np.asarray(cotangents[name])) for name in ctx.names)


def by_gradcheck(fast: bool) -> Callable[..., Refuses | None]:
    def at(case: Case, point: Point, name: str, index: tuple[int, ...]) -> Refuses | None:
        if point.dtype != "float64":
            return None
        names, fixed = _claimed(case, point)
        leaves = [torch.tensor(np.array(point.primals[n]), requires_grad=True) for n in names]

        def refuses(error: float) -> bool:
            rule = planted(case.subject, name, index, error)
            return not torch.autograd.gradcheck(
                lambda *leaves: HandWritten.apply(rule, names, fixed, *leaves),
                leaves,
                fast_mode=fast,
                raise_exception=False,
            )

        return refuses

    return at


def by_check_grads(case: Case, point: Point, name: str, index: tuple[int, ...]) -> Refuses | None:
    names, fixed = _claimed(case, point)
    (oracle,) = case.oracles(["jax"])
    reference = oracle.reference
    assert reference is not None
    which = names.index(name)

    def primal(*leaves: Any) -> Any:
        return called(reference, {**dict(zip(names, leaves, strict=True)), **fixed})

    def refuses(error: float) -> bool:
        def bwd(leaves: tuple[Any, ...], delta: Any) -> tuple[Any, ...]:
            cotangents = list(jax.vjp(primal, *leaves)[1](delta))
            cotangents[which] = jax.numpy.asarray(cotangents[which]).at[index].multiply(1 + error)
            return tuple(cotangents)

        f = jax.custom_vjp(primal)
        f.defvjp(lambda *leaves: (primal(*leaves), leaves), bwd)
        with jax.enable_x64(True):
            leaves = tuple(jax.numpy.asarray(np.array(point.primals[n])) for n in names)
            try:
                check_grads(f, leaves, order=1, modes=["rev"])
            except AssertionError:
                return True
        return False

    return refuses


def by_assert_close(case: Case, point: Point, name: str, index: tuple[int, ...]) -> Refuses | None:
    (oracle,) = case.oracles(["torch"])
    want = oracle(**point.primals)[1](point.delta)

    def refuses(error: float) -> bool:
        got = planted(case.subject, name, index, error)(**point.primals)[1](point.delta)
        try:
            for n, g in got.items():
                torch.testing.assert_close(torch.tensor(np.array(g)), torch.tensor(np.array(want[n])))
        except AssertionError:
            return True
        return False

    return refuses


BY: Mapping[str, Callable[..., Refuses | None]] = {
    "slow": by_gradcheck(fast=False),
    "fast": by_gradcheck(fast=True),
    "check_grads": by_check_grads,
    "close": by_assert_close,
}


def _claimed(case: Case, point: Point) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Return the primals that the subject has a cotangent for, and the others as they are."""
    claimed = case.subject(**point.primals)[1](point.delta)
    names = tuple(n for n in point.primals if n in claimed and is_differentiable(point.primals[n]))
    return names, {n: np.array(a) for n, a in point.primals.items() if n not in names}


def measure(layer: str, dtype: str, regime: str, examples: int, seed: int, seconds: float) -> dict[str, Any]:
    """Ask every tool for the smallest error that it refuses, at points of one layer."""
    _, pool = layers(seed)[layer]
    found: dict[str, list[float]] = {tool: [] for tool in (OURS, "wrong", *PEERS)}
    asked, refused_right = dict.fromkeys((OURS, *PEERS), 0), dict.fromkeys((OURS, *PEERS), 0)
    spent = dict.fromkeys((OURS, *PEERS), 0.0)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = number = 0
        while seen < examples and number < 4 * examples and spent[OURS] < seconds:
            rng = np.random.default_rng((seed, number, sorted(REGIMES).index(regime)))
            number += 1
            case = pool[int(rng.integers(len(pool)))]
            point = drawn_point(case, dtype, regime, rng)
            entry = chosen_entry(case, point, rng)
            if entry is None:
                continue
            for tool in (OURS, *PEERS):
                if seen % EVERY[tool] or spent[tool] > seconds:
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
                    found[tool].append(smallest(refuses))
                    if tool == OURS:
                        found["wrong"].append(smallest(lambda error, says=says: _wrong(says(error))))
                spent[tool] += time.perf_counter() - started
            seen += 1
    jax.clear_caches()  # what was compiled for one layer serves no other
    return {
        "layer": layer,
        "dtype": dtype,
        "regime": regime,
        "asked": asked,
        "refused_right": refused_right,
        "seconds": spent,
        "median": {tool: _quantile(errors, 0.5) for tool, errors in found.items()},
        "in_99_percent": {tool: _quantile(errors, 0.99) for tool, errors in found.items()},
    }


def _wrong(result: Result) -> bool:
    return any(f.verdict is Verdict.WRONG for f in result.findings)


def _quantile(errors: Sequence[float], share: float) -> float | None:
    """Return the smallest error found that is refused in at least this share of the examples."""
    return sorted(errors)[math.ceil(share * len(errors)) - 1] if errors else None


def misses(row: Mapping[str, Any]) -> list[str]:
    """Return which of this project's two figures miss their aim."""
    found = zip(("median", "in_99_percent"), AIMS[row["dtype"]], strict=True)
    return [which for which, aim in found if (e := row[which][OURS]) is not None and e > aim * 1.0001]


def _cell(error: float | None, width: int, missed: bool = False) -> str:
    text = "-" if error is None else ">1" if math.isinf(error) else f"{error:.0e}"
    return f"{text}{'!' if missed else ''}".rjust(width)


def table(rows: Sequence[Mapping[str, Any]], regime: str) -> list[str]:
    """Return the lines of one regime's table."""
    gap = " " * 27
    lines = [
        f"{REGIMES[regime]}: smallest relative error refused, median and in 99 %",
        f"{gap}{'this project'.center(21)}{'gradcheck'.center(26)}{'jax'.center(13)}{'torch'.center(13)}",
        f"{gap}{'':21}{'slow':>13}{'fast':>13}{'check_grads':>13}{'assert_close':>13}",
        f"{'layer':<19} {'':3}{'n':>4}{'median':>7}{'99 %':>7}{'wrong':>7}" + f"{'median':>7}{'99 %':>6}" * len(PEERS),
    ]
    for row in rows:
        if row["regime"] != regime:
            continue
        median, most, missed = row["median"], row["in_99_percent"], misses(row)
        line = f"{row['layer']:<19} {row['dtype'].replace('float', 'f')}"
        line += (
            f"{row['asked'][OURS]:>4}"
            + _cell(median[OURS], 7, "median" in missed)
            + _cell(most[OURS], 7, "in_99_percent" in missed)
        )
        line += _cell(median["wrong"], 7)
        lines.append(line + "".join(_cell(median[p], 7) + _cell(most[p], 6) for p in PEERS))
    asked = {tool: sum(r["asked"][tool] for r in rows if r["regime"] == regime) for tool in (OURS, *PEERS)}
    right = {tool: sum(r["refused_right"][tool] for r in rows if r["regime"] == regime) for tool in asked}
    shares = (f"{tool.removeprefix('this ')} {right[tool]}/{asked[tool]}" for tool in asked)
    return [*lines, f"right gradients refused: {', '.join(shares)}"]


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the aims and what misses them."""
    lines = [f"aim in {dtype}: median <= {median:.0e}, in 99 % <= {most:.0e}" for dtype, (median, most) in AIMS.items()]
    missed = []
    for row in rows:
        for which in misses(row):
            found, shown = _cell(row[which][OURS], 0), which.replace("_", " ")
            missed.append(f"missed: {row['layer']} {row['dtype']}, {REGIMES[row['regime']]}: {shown} {found}")
    return lines + (missed or ["every aim is met"])


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value


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


def run_all(names: Sequence[str], args: argparse.Namespace, console: Console) -> tuple[list[dict[str, Any]], bool]:
    """Measure every layer, dtype and regime in several processes; Ctrl-C keeps what there is."""
    planned = [(name, dtype, regime) for regime in REGIMES for name in names for dtype in DTYPES]
    rows: list[dict[str, Any]] = []
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
