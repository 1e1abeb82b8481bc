"""Compare what finds wrong double backwards: this project, gradgradcheck, and JAX's check_grads of order 2."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from jax.test_util import check_grads  # noqa: E402
from rich.box import SIMPLE_HEAD  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import oracles  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402
from oracles.report.disagreement import Disagreement  # noqa: E402
from oracles.rule import Array, Rule  # noqa: E402

jax.config.update("jax_enable_x64", True)

GUIDE = """\
Every subject is right in the first order. Its double backward is right, or has a mistake. The same functions are
written as a torch.autograd.Function, for this project and gradgradcheck, and as a jax.custom_vjp, for this project and
check_grads(order=2, modes=["rev"]): a custom_vjp has no forward mode. Points are those of --seed; both peers have their
default tolerances.
  wrong refused  double backwards with a mistake that are refused, of all of them
  right refused  right ones that are refused
  seconds        the median of one call

examples:
  python benchmarks/second_order.py                      ten points of each
  python benchmarks/second_order.py --json second.json   the figures, for a machine"""

# By name: f, its derivative, and points at which it is asked.
FUNCTIONS: Mapping[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "tanh": (lambda xp, z: xp.tanh(z), lambda xp, z: 1 - xp.tanh(z) ** 2),
    "sine": (lambda xp, z: xp.sin(z), lambda xp, z: xp.cos(z)),
    "cube": (lambda xp, z: z**3, lambda xp, z: 3 * z**2),
    "exponential": (lambda xp, z: xp.exp(z), lambda xp, z: xp.exp(z)),
    "logistic": (lambda xp, z: 1 / (1 + xp.exp(-z)), lambda xp, z: xp.exp(-z) / (1 + xp.exp(-z)) ** 2),
}
SCALES = {"ordinary": 1.0, "small": 1e-4, "large": 30.0}


def cut(xp: Any, value: Any) -> Any:
    """Return a value without its graph."""
    return value.detach() if xp is torch else jax.lax.stop_gradient(value)


# By name: the slope that a backward multiplies delta by, which has the right value and another derivative.
MISTAKES: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    "right": lambda xp, z, slope: slope(xp, z),
    "detached": lambda xp, z, slope: slope(xp, cut(xp, z)),
    "half detached": lambda xp, z, slope: 0.5 * slope(xp, z) + 0.5 * slope(xp, cut(xp, z)),
    "one entry detached": lambda xp, z, slope: xp.where(
        xp.arange(z.shape[0])[:, None] == 1, slope(xp, cut(xp, z)), slope(xp, z)
    ),
    "of twice the size": lambda xp, z, slope: 2 * slope(xp, z) - slope(xp, cut(xp, z)),
    "off by 1e-3": lambda xp, z, slope: 1.001 * slope(xp, z) - 0.001 * slope(xp, cut(xp, z)),
    "off by 1e-6": lambda xp, z, slope: slope(xp, z) * (1 + 1e-6) - 1e-6 * slope(xp, cut(xp, z)),
}


def torch_subject(name: str, mistake: str) -> Any:
    """Return a torch.autograd.Function of one primal, z."""
    f, slope = FUNCTIONS[name]

    def forward(ctx: Any, z: Any) -> Any:
        ctx.save_for_backward(z)
        return f(torch, z)

    def backward(ctx: Any, delta: Any) -> Any:
        return delta * MISTAKES[mistake](torch, ctx.saved_tensors[0], slope)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(f"{name}_{mistake}".replace(" ", "_"), (torch.autograd.Function,), methods)


def jax_subject(name: str, mistake: str) -> Any:
    """Return a jax.custom_vjp of one primal, z."""
    f, slope = FUNCTIONS[name]

    def primal(z: Any) -> Any:
        return f(jnp, z)

    custom = jax.custom_vjp(primal)
    custom.defvjp(lambda z: (f(jnp, z), z), lambda z, delta: (delta * MISTAKES[mistake](jnp, z, slope),))
    return custom


def refused_here(rule: Rule, reference: Rule, z: Array) -> bool:
    """Return whether this project refuses a subject in the second order, of which the first is right."""
    try:
        oracles.check(rule, {"z": z}, [reference], order=2)
    except Disagreement as refusal:
        return refusal.result.property_name.endswith("order 2")
    return False


def refused_by_gradgradcheck(function: Any, z: Array) -> bool:
    """Return whether torch's gradgradcheck refuses a Function at its default tolerances."""
    return not torch.autograd.gradgradcheck(
        function.apply, [torch.tensor(z, requires_grad=True)], raise_exception=False
    )


def refused_by_check_grads(function: Any, z: Array) -> bool:
    """Return whether JAX's check_grads of order 2 refuses a function at its default tolerances."""
    try:
        check_grads(function, (jnp.asarray(z),), order=2, modes=["rev"])
    except AssertionError:
        return True
    return False


@dataclass
class Count:
    """What one tool refused.

    Attributes:
        tool: its name.
        wrong, right: how many wrong and right subjects it refused, and of how many.
        seconds: of each call.
    """

    tool: str
    wrong: tuple[int, int] = (0, 0)
    right: tuple[int, int] = (0, 0)
    seconds: float = 0.0


def counted(tool: str, seed: int, points: int) -> Count:
    """Ask a tool at all points of all subjects."""
    wrong, right, seconds = [], [], []
    for name, (f, _) in FUNCTIONS.items():
        by_torch = oracles.torch_autograd(lambda z, f=f: f(torch, z))
        for mistake in MISTAKES:
            function, custom = torch_subject(name, mistake), jax_subject(name, mistake)
            rules = oracles.torch_function(function), oracles.jax_function(custom)
            calls: Mapping[str, Callable[[Array], bool]] = {
                "this project, torch": lambda z, r=rules, o=by_torch: refused_here(r[0], o, z),
                "this project, JAX": lambda z, r=rules, o=by_torch: refused_here(r[1], o, z),
                "gradgradcheck": lambda z, f=function: refused_by_gradgradcheck(f, z),
                "check_grads": lambda z, f=custom: refused_by_check_grads(f, z),
            }
            for i in range(points):
                scale = list(SCALES.values())[i % len(SCALES)]
                scale = min(scale, 5.0) if name in ("exponential", "logistic") else scale
                z = scale * np.random.default_rng((seed, i)).standard_normal((3, 2))
                started = time.perf_counter()
                (right if mistake == "right" else wrong).append(calls[tool](z))
                seconds.append(time.perf_counter() - started)
    return Count(tool, (sum(wrong), len(wrong)), (sum(right), len(right)), sorted(seconds)[len(seconds) // 2])


TOOLS = ("this project, torch", "gradgradcheck", "this project, JAX", "check_grads")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status, 1 if this project refuses a right subject."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, whole or not at all")
    parser.add_argument("--points", metavar="N", type=int, default=9, help="points of each subject (9)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the points (0)")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # an entry of zero, far out, has no relative error
    counts = [counted(tool, args.seed, args.points) for tool in TOOLS]
    table = Table("tool", "wrong refused", "right refused", "seconds", box=SIMPLE_HEAD)
    for count in counts:
        of = [f"{refused} of {total}" for refused, total in (count.wrong, count.right)]
        table.add_row(count.tool, *of, f"{count.seconds:.3f}")
    Console(width=100).print(table)
    if args.json:
        write_atomically(args.json, json.dumps([asdict(count) for count in counts], indent=1))
    return int(any(c.right[0] for c in counts if c.tool.startswith("this project")))


if __name__ == "__main__":
    sys.exit(main())
