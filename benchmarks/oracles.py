"""Count verified examples per second: the judge with both frameworks, and torch.autograd.gradcheck, in one run."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be this very file

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from benchmarks import fresh_shapes  # noqa: E402
from benchmarks.shared import Row, positive  # noqa: E402
from manual_bp import Linear, Sequential, Tanh  # noqa: E402
from oracles.adapters.functions import manual_layer  # noqa: E402
from oracles.constants import POINTS_PER_CASE  # noqa: E402
from oracles.decision.judge import judge  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402
from oracles.references.network import (  # noqa: E402
    sequential_jax,
    sequential_options,
    sequential_parameters,
    sequential_torch,
)
from oracles.registry import Case  # noqa: E402
from oracles.report.disagreement import require  # noqa: E402
from oracles.rule import Rule  # noqa: E402
from oracles.strategies import Point, points, real  # noqa: E402
from oracles.tolerance import tolerance_at  # noqa: E402

GUIDE = """\
The subject is a tanh MLP of three Linear layers in float64. Hypothesis draws its four widths and its rows,
1 to 8 or 1 to 64, then four points of it, as a search does: values, special entries, memory layout, cotangent.
  verdict   the output and every gradient against torch and JAX, within the tolerance derived at that point
  fast      torch.autograd.gradcheck, fast_mode=True, of an autograd.Function around the same backward
  slow      torch.autograd.gradcheck as it comes
In every round all three see the same examples, in random order, Hypothesis included; JAX has traced the network
before the clock starts. A ratio is the median over the rounds.

Then, on points drawn beforehand, the price of one verdict next to the naive loop, which evaluates the subject and
both frameworks once and calls np.testing.assert_allclose on every array, and where the time of a verdict goes.
"refused" is the share of these right gradients that the naive loop refuses; to compose its messages takes long,
so the points are those that it accepts.
One thread throughout. A ratio that misses its target is marked with !.

The last table is of the JAX oracle alone: for each registered layer, Hypothesis draws cases, shapes and options new
each time (where a layer has fewer, they come again with other values), and both oracles evaluate the output and pull
one cotangent back at each. JAX starts with nothing but its imports, so what it traces is paid for.
  / torch   JAX's processor seconds over torch's, all examples
  later     the same over the second half of them, when most is traced
  traces    how often JAX traced; compiled: how often it went to XLA, which is slow

examples:
  python benchmarks/oracles.py                    both sizes, two minutes
  python benchmarks/oracles.py --quick            the same, under a minute, rougher
  python benchmarks/oracles.py --layers Conv2d    only the last table, of this layer
  python benchmarks/oracles.py --json out.json    the figures, for a machine"""

# The greatest extent of a dimension: examples in a round, the least ratio of verdict to fast and slow gradcheck.
SIZES: dict[int, tuple[int, dict[str, float]]] = {
    8: (60, {"fast": 2.0, "slow": 8.0}),
    64: (8, {"fast": 2.0, "slow": 80.0}),
}
MOST_OF_NAIVE = 3.0
Example = tuple[Case, Sequential, tuple[Point, ...]]
Body = Callable[[Case, Sequential, Point], object]


@st.composite
def examples(draw: st.DrawFn, most: int) -> Example:
    rows, *n = (draw(st.integers(1, most)) for _ in range(5))
    network = Sequential(Linear(n[0], n[1]), Tanh(), Linear(n[1], n[2]), Tanh(), Linear(n[2], n[3]))
    primals = {"z": real(rows, n[0]), **sequential_parameters(network)}
    case = Case(manual_layer(network), primals, sequential_torch, sequential_jax, sequential_options(network), ("z",))
    return case, network, draw(points(case.subject, primals, count=POINTS_PER_CASE))


def drive(body: Body, most: int, count: int, seed: int) -> float:
    """Run body on the examples that a seed determines; return the seconds for one."""

    def test(example: Example) -> None:
        case, network, at = example
        for point in at:
            body(case, network, point)

    settings = hypothesis.settings(
        max_examples=count // POINTS_PER_CASE,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    test = hypothesis.seed(seed)(settings(hypothesis.given(examples(most))(test)))
    start = time.perf_counter()
    test()
    return (time.perf_counter() - start) / count


def verdict(case: Case, network: Sequential, point: Point) -> None:
    require(judge(case.subject, point.primals, point.delta, case.oracles()))


class HandWritten(torch.autograd.Function):
    """An autograd.Function, so that gradcheck can judge a hand-written backward."""

    @staticmethod
    def forward(ctx: Any, network: Sequential, names: tuple[str, ...], z: Any, *params: Any) -> Any:
        """Store the cache."""
        arrays = (p.detach().numpy() for p in params)
        y, ctx.cache = network.forward(dict(zip(names, arrays, strict=True)), z.detach().numpy())
        ctx.network, ctx.names = network, names
        return torch.from_numpy(y)

    @staticmethod
    def backward(ctx: Any, *delta: Any) -> Any:
        """Return the gradients of z and of the parameters, after None for what is no tensor."""
        dz, dparams = ctx.network.backward(ctx.cache, delta[0].contiguous().numpy())
        return None, None, *(torch.from_numpy(g) for g in (dz, *(dparams[name] for name in ctx.names)))


def gradcheck(fast: bool) -> Body:
    def body(case: Case, network: Sequential, point: Point) -> None:
        names = tuple(n for n in point.primals if n != "z")
        leaves = [torch.tensor(np.array(point.primals[n]), requires_grad=True) for n in ("z", *names)]
        torch.autograd.gradcheck(
            lambda *leaves: HandWritten.apply(network, names, *leaves), leaves, fast_mode=fast, raise_exception=False
        )

    return body


def compare_rates(most: int, seconds: float) -> Row:
    """Drive the judge and gradcheck over the same examples, round after round."""
    count, targets = SIZES[most]
    bodies: dict[str, Body] = {"verdict": verdict, "fast": gradcheck(fast=True), "slow": gradcheck(fast=False)}
    for body in bodies.values():
        drive(body, most, POINTS_PER_CASE, seed=0)
    rounds: list[dict[str, float]] = []
    stop = time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < stop:
        order = random.sample(list(bodies), len(bodies))
        rounds.append({name: drive(bodies[name], most, count, 1 + len(rounds)) for name in order})
    ratios = {name: statistics.median(r[name] / r["verdict"] for r in rounds) for name in targets}
    return {
        "dims": most,
        "rounds": len(rounds),
        "examples": count * len(rounds),
        "per_second": {name: 1 / statistics.median(r[name] for r in rounds) for name in bodies},
        "ratio": ratios,
        "target": targets,
        "met": all(ratios[name] >= target for name, target in targets.items()),
    }


def naive(case: Case, point: Point) -> None:
    """Compare the subject with each framework once, by NumPy's own comparison and its tolerance."""
    y, pullback = case.subject(**point.primals)
    got = {"y": y, **pullback(point.delta)}
    for oracle in case.oracles():
        y, pullback = oracle(**point.primals)
        for name, want in {"y": y, **pullback(point.delta)}.items():
            np.testing.assert_allclose(got[name], want)


def accepted(case: Case, point: Point) -> bool:
    try:
        naive(case, point)
    except AssertionError:
        return False
    return True


def evaluated(rule: Rule, point: Point) -> None:
    rule(**point.primals)[1](point.delta)


def estimate_tolerance(case: Case, point: Point) -> None:
    tolerance_at(case.oracles(), point.primals, point.delta, "float64", fallback=case.subject).estimate()


PARTS: Mapping[str, Callable[[Case, Point], object]] = {
    "verdict": lambda case, point: judge(case.subject, point.primals, point.delta, case.oracles()),
    "naive": naive,
    "subject": lambda case, point: evaluated(case.subject, point),
    "jax": lambda case, point: evaluated(case.oracles(["jax"])[0], point),
    "torch": lambda case, point: evaluated(case.oracles(["torch"])[0], point),
    "rounding": estimate_tolerance,
}


def split(most: int, seconds: float) -> Row:
    """Time one verdict, the naive loop and the parts of a verdict on points drawn beforehand."""
    drawn: list[tuple[Case, Point]] = []
    drive(lambda case, network, point: drawn.append((case, point)), most, 60, seed=0)
    everything, drawn = len(drawn), [example for example in drawn if accepted(*example)]
    rounds: list[dict[str, float]] = []
    stop = time.perf_counter() + seconds
    while len(rounds) < 5 or time.perf_counter() < stop:
        took = {"drawing": drive(lambda *example: None, most, 60, seed=len(rounds))}
        for name in random.sample(list(PARTS), len(PARTS)):
            start = time.perf_counter()
            for case, point in drawn:
                PARTS[name](case, point)
            took[name] = (time.perf_counter() - start) / len(drawn)
        took["compare"] = took["verdict"] - sum(took[n] for n in ("subject", "jax", "torch", "rounding"))
        rounds.append(took)
    ratio = statistics.median(r["verdict"] / r["naive"] for r in rounds)
    return {
        "dims": most,
        "rounds": len(rounds),
        "microseconds": {name: 1e6 * statistics.median(r[name] for r in rounds) for name in rounds[0]},
        "ratio_to_naive": ratio,
        "refused_by_naive": 1 - len(drawn) / everything,
        "target": MOST_OF_NAIVE,
        "met": ratio <= MOST_OF_NAIVE,
    }


def rate_line(row: Row) -> str:
    cells = [f"1..{row['dims']:<4}", *(f"{row['per_second'][n]:>9.1f}" for n in ("verdict", "fast", "slow"))]
    for name, target in row["target"].items():
        cells.append(f"{row['ratio'][name]:>9.1f} >={target:.0f}{'' if row['ratio'][name] >= target else '!'}")
    return " ".join(cells)


def split_line(row: Row) -> str:
    took = row["microseconds"]
    parts = ("drawing", "subject", "jax", "torch", "rounding", "compare")
    ratio = f"{row['ratio_to_naive']:.2f} <={row['target']:.0f}{'' if row['met'] else '!'}"
    return (
        f"1..{row['dims']:<4}{took['verdict']:>9.0f}{took['naive']:>7.0f}{ratio:>11}"
        + "".join(f"{took[name]:>9.0f}" for name in parts)
        + f"{row['refused_by_naive']:>9.0%}"
    )


def judge_tables(seconds: float) -> Row:
    """Print and return the figures of the judge as a whole."""
    print("examples per second, drawing included; verdict over gradcheck")
    print("dims     verdict      fast      slow       / fast       / slow", flush=True)
    rates, splits = [], []
    for most in SIZES:
        rates.append(compare_rates(most, 0.4 * seconds))
        print(rate_line(rates[-1]), flush=True)
    print("microseconds for one verdict and for the naive loop; drawing, and its parts; what the naive loop refuses")
    print(
        "dims    verdict  naive    / naive  drawing  subject      jax    torch rounding  compare  refused", flush=True
    )
    for most in SIZES:
        splits.append(split(most, 0.1 * seconds))
        print(split_line(splits[-1]), flush=True)
    return {"rates": rates, "verdicts": splits}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=positive, help="time to spend in all, at least three rounds (default 120)")
    parser.add_argument("--quick", action="store_true", help="three rounds or twenty seconds")
    parser.add_argument("--layers", nargs="*", metavar="NAME", help="only the last table, of these layers, or of all")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, whole or not at all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report: Row = {"torch": torch.__version__, "numpy": np.__version__}
    if args.layers is None:
        report |= judge_tables(args.seconds or (20.0 if args.quick else 120.0))
    print("the JAX oracle on fresh shapes and options")
    print(fresh_shapes.HEAD, flush=True)
    report["fresh_shapes"] = []
    for row in fresh_shapes.rows(200 if args.quick else 1000, args.layers or ()):
        report["fresh_shapes"].append(row)
        print(fresh_shapes.line(row), flush=True)
    if args.json:
        write_atomically(args.json, json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
