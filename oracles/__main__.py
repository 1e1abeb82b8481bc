"""The command line: ``oracles list``, ``conventions``, ``verify`` and ``check``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from oracles.cli.supervision import INTERRUPTED, supervised
from oracles.environment import pin_threads
from oracles.options import DTYPE_NAMES, FRAMEWORK_NAMES, PROFILES, VERIFY_POINTS, at_least, some_of

EXAMPLES = """\
examples:
  oracles list                                  the layers that can be judged
  oracles conventions                           the derivatives at kinks, as each framework has them
  oracles verify                                every layer, both frameworks, float64 and float32
  oracles verify Linear Tanh --against torch    two layers, by PyTorch alone
  oracles verify --thorough                     a longer search
  oracles verify --max-examples 2000 --seed 7   a deeper search, reproducible
  oracles verify --json verdicts.json           the results for a machine
  oracles verify --cases my_package.cases       your own layers: what @oracles.oracle_for registers there
  oracles check silu.py:forward,backward --against torch:reference --shapes "z=4,3"
                                                one function of yours; see oracles check --help

exit status: 0 all agree, 1 a layer is refused, 2 wrong usage, 130 interrupted (the results until then are kept)
"""

CHECK = """\
TARGET is FILE.py:NAME or MODULE:NAME, where NAME is an expression of names, attributes, calls, literals, arithmetic and
lambdas. Names are those of that file, and oracles:
  silu.py:forward,backward      a pair: forward(**primals) -> (y, cache), backward(cache, delta) -> {name: cotangent}
  layers.py:Dense(3, 2)         an instance with the contract of manual_bp: forward(params, z), backward(cache, delta)
  layers.py:Dense               a class: made without arguments, or drawn by its @oracles.oracle_for in that file
  net.py:oracles.stateful(Net, params=["W", "b"])       anything else, by an adapter of the package oracles
  rules.py:rule                 an oracles.Rule, or a Hypothesis strategy of oracles.Case
  ops.py:MyFunction             a torch.autograd.Function, an nn.Module, or a jax.custom_vjp

REF states the primal only, in the framework's own idiom; the framework derives the rest. It is a name in TARGET's file
(torch:reference), somewhere else (torch:refs.py:silu), or the framework's own function (jax:jax.nn.silu). Without
--against, finite differences of the forward judge the backward, and ball arithmetic too if it can.

The primals, from the first of these that is given:
  --primals FILE.npz            what np.savez("FILE.npz", z=z, W=W) has written; at most 2 GiB of arrays
  --shapes "z=4,3 W=3,2"        drawn from --seed: signed normal numbers; or  p=4:positive  p=2,5:probabilities
                                idx=5:int<7  mask=5:bool  s= (a scalar); what a layer's init draws may be left out
  the file itself               primals = {"z": ...}, or  def primals(rng): return {"z": rng.standard_normal((4, 3))},
                                or the @oracles.oracle_for of the class

example: save this as silu.py

  import numpy as np

  def forward(z):
      a = 1 / (1 + np.exp(-z))
      return z * a, (z, a)

  def backward(cache, delta):
      z, a = cache
      return {"z": delta * (a + z * a * (1 - a))}

and run  oracles check silu.py:forward,backward --against torch:torch.nn.functional.silu --shapes z=4,3

exit status: 0 nothing is refused, 1 refused, or every point is inconclusive, or TARGET ended the process,
             2 wrong usage, or nothing is known: invalid input, a reference or the judge itself failed
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="oracles",
        description="Judge hand-written gradients by PyTorch, JAX and finite differences, with derived tolerances.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    list_ = commands.add_parser("list", help="list the layers that can be judged, and the source of their cases")
    _add_cases(list_, "also list")
    commands.add_parser("conventions", help="the derivatives of manual_bp, torch and JAX at kinks")
    _add_verify(commands)
    _add_check(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return parser


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser(
        "verify",
        help="search for a point at which a layer's gradient is wrong",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("layers", nargs="*", metavar="LAYER", help="layers by name, see `oracles list`; default: all")
    _add_cases(verify, "judge")
    verify.add_argument(
        "--against",
        type=some_of(FRAMEWORK_NAMES),
        default=FRAMEWORK_NAMES,
        metavar="NAMES",
        help="frameworks, comma-separated (default: torch,jax)",
    )
    verify.add_argument(
        "--dtype",
        type=some_of(DTYPE_NAMES),
        default=DTYPE_NAMES,
        metavar="NAMES",
        help="dtypes, comma-separated (default: float64,float32)",
    )
    verify.add_argument("--max-examples", type=at_least(1), metavar="N", help="points per property (default: 30)")
    verify.add_argument("--thorough", action="store_true", help="100 points per property")
    verify.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="the seed of the search (default: 0)")
    verify.add_argument(
        "-j", "--jobs", type=at_least(1), metavar="N", help="processes (default: one for each core, at most 8)"
    )
    verify.add_argument("--json", metavar="FILE", help="write the results as JSON, atomically")


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check",
        help="judge one function or class of yours, in a file or a module",
        usage="oracles check TARGET [--against FRAMEWORK:REF ...] [--primals FILE.npz | --shapes SHAPES] [options]",
        epilog=CHECK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("target", metavar="TARGET", help="the subject: FILE.py:NAME or MODULE:NAME")
    check.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="FRAMEWORK:REF",
        help="a reference: torch:REF or jax:REF; repeatable",
    )
    where = check.add_mutually_exclusive_group()
    where.add_argument("--primals", metavar="FILE.npz", help="the point: arrays by name")
    where.add_argument("--shapes", metavar="SHAPES", help='draw the point: shapes by name, "z=4,3 W=3,2 b=1,2"')
    check.add_argument(
        "--delta",
        metavar="FILE",
        help="the cotangent of the output: .npy, or .npz in the order of the outputs (default: three drawn ones)",
    )
    check.add_argument(
        "--dtype",
        type=some_of(DTYPE_NAMES),
        metavar="NAMES",
        help="dtypes to judge in, comma-separated (default: float64 where primals are drawn, else their own)",
    )
    _add_conditions(check)
    check.add_argument("--script", metavar="OUT.py", help="if refused, write a stand-alone file that reproduces it")
    check.add_argument("--json", metavar="FILE", help="write the results as JSON, atomically")


def _add_conditions(check: argparse.ArgumentParser) -> None:
    """Add the options that say how a point is judged, and how many."""
    check.add_argument(
        "--precision",
        metavar="NAME",
        help="the precision that the subject computes in, if lower than its inputs: float32",
    )
    check.add_argument(
        "--kinks",
        choices=("any", "declared"),
        default=None,
        help="at points without a derivative, accept any subgradient, or the references' own (default: any)",
    )
    check.add_argument(
        "--isolate", action="store_true", help="run the subject in a process of its own: a crash is then a finding"
    )
    check.add_argument(
        "--seconds",
        type=at_least(1),
        metavar="T",
        help="the time budget of one point: when it is over, the result says what was not done (default: 60)",
    )
    check.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="the seed of what is drawn (default: 0)"
    )
    check.add_argument(
        "--examples",
        type=at_least(1),
        metavar="N",
        help="how many points, from seeds S, S+1, … (default: 1; 100 where cases are drawn)",
    )


def _add_cases(command: argparse.ArgumentParser, verb: str) -> None:
    command.add_argument(
        "--cases",
        action="append",
        default=[],
        metavar="MODULE",
        help=f"{verb} what @oracles.oracle_for registers in this module or .py file; repeatable",
    )


# Before any import of NumPy, torch or JAX: they read the number of threads when they are loaded.
pin_threads()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; without ``argv``, as a program of its own."""
    args = make_parser().parse_args(argv)
    return supervised(partial(_complete, args)) if argv is None else _complete(args)


def _complete(args: argparse.Namespace) -> int:
    """Run a command to its end, whatever the code under judgement does."""
    try:
        with warnings.catch_warnings():
            return _run(args)
    except ValueError as error:
        complaint = str(error)
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "hypothesis", "rich"):
            raise
        complaint = f"{error.name} is not installed.\nFix:    pip install 'manual-bp[oracles]'"
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as leaving:  # none of ours: those are raised outside of this
        print(f"oracles: the code under judgement raised SystemExit: {leaving}", file=sys.stderr)
        return 1
    _refuse(args, complaint)


def _refuse(args: argparse.Namespace, complaint: str) -> NoReturn:
    """Exit with status 2, after the usage of the command that was given and the complaint."""
    command: argparse.ArgumentParser = args.parser
    command.error(complaint)


def _run(args: argparse.Namespace) -> int:
    """Run a command. Its modules are imported here, so that ``--help`` loads neither NumPy nor Hypothesis."""
    from oracles.process_state import judging
    from oracles.registry import BrokenCases

    warnings.simplefilter("ignore", BrokenCases)  # the commands print these complaints themselves
    with judging():  # from the import of the user's files on
        return _run_command(args)


def _run_command(args: argparse.Namespace) -> int:
    if args.command == "check":
        from oracles.cli.check_command import check

        return check(args)
    from oracles.cli import layer_commands
    from oracles.cli.workers import available_cores

    if args.command == "list":
        return layer_commands.list_layers(args.cases)
    if args.command == "conventions":
        return layer_commands.list_conventions()
    return layer_commands.verify(
        args.layers,
        against=args.against,
        dtypes=args.dtype,
        max_examples=args.max_examples or (PROFILES["default"] if args.thorough else VERIFY_POINTS),
        seed=args.seed,
        json_path=args.json,
        cases=args.cases,
        jobs=args.jobs or available_cores(),
    )


if __name__ == "__main__":
    sys.exit(main())
