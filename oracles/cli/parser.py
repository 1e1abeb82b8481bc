"""The parser of the command line. It loads neither NumPy nor Hypothesis, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TypeAlias

from oracles.constants import CAMPAIGN_BLOCK
from oracles.environment import versions_line
from oracles.options import (
    ALL,
    ALL_DTYPES,
    ENGINES,
    FRAMEWORK_NAMES,
    INVARIANCES,
    MODES,
    VERIFY_POINTS,
    at_least,
    block_sizes,
    did_you_mean,
    dtypes_of,
    duration,
    names_of,
    names_or_positions,
    one_of,
    some_of,
)

SHELLS = ("bash", "zsh", "tcsh")
# How each shell completes the name of a file, in the words of shtab.
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXAMPLES = """\
examples:
  oracles explain Linear                        its equations, references, and what is drawn; also of a verdict
  oracles new test net.py:Dense                 a test of your own class, with the adapter that it needs
  oracles list                                  the layers that can be judged
  oracles conventions                           the derivatives at kinks, as each framework has them
  oracles verify                                every layer, both frameworks, float64 and float32
  oracles verify Linear Tanh --against torch    two layers, by PyTorch alone
  oracles verify --thorough                     a longer search
  oracles verify --max-examples 2000 --seed 7   a deeper search, reproducible
  oracles verify --verbose                      a line for each oracle and dtype, and what was drawn
  oracles verify --json verdicts.json           the results for a machine
  oracles verify --html report.html             the results as a page; --compare verdicts.json shows what has changed
  oracles verify --cases my_package.cases       your own layers: what @oracles.oracle_for registers there
  oracles check silu.py:forward,backward --against torch:reference --shapes "z=4,3"
                                                one function of yours; see oracles check --help

exit status: 0 all agree, 1 a layer is refused or inconclusive, 2 wrong usage, 3 nothing is refused, and something
             was skipped since a package is missing, 130 interrupted (the results until then are kept)
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
             2 wrong usage, or nothing is known: invalid input, a reference or the judge itself failed,
             3 skipped: a package that TARGET or a reference needs is not installed
"""

CAMPAIGN = """\
examples:
  oracles campaign --store night --budget 8h               every layer, on the cores of this machine
  oracles campaign --store night --budget 8h               again: goes on where it was
  oracles campaign Linear --store night --rounds 20        a fixed number of units
  oracles campaign --cases my_package.cases --store redis://head:6379/0
                                                           the same on every machine: they share the work
  oracles campaign --store redis://head:6379/0 --on ray --address auto
                                                           one command for a cluster of Ray
  oracles campaign status night                            how much is done, by whom, what is found
  oracles campaign report night --html night.html          failures, worst ratios, coverage; as a page too

exit status: 0 nothing is refused, 1 something is refused, not judged or inconclusive, 2 wrong usage, or the store is
             full or does not answer, 3 nothing is refused and something was skipped, 130 interrupted
"""

JUDGE = """\
The subject runs in processes of its own, without the reference, the seeds, the network and any file that it does not
need. SUBJECT is FILE.py:NAME as of `oracles check`; REF is torch:FILE.py:NAME, jax:jax.nn.silu or FILE.py:NAME.

CASES is a JSON file, or an .npz file with the primals of one point:
  {"cases": [{"shapes": "z=n,3 W=3,2", "extents": {"n": [1, 65]}, "dtypes": ["float32"], "points": 5}]}

JOBS.jsonl has an object in each line: {"id": 7, "subject": "k.py:forward,backward", "reference": "torch:ref.py:f",
"cases": [...]}; "source" may hold the text of the subject. --schema prints all keys. With --batch - jobs are read from
the standard input, and each judgement is written to the standard output before the next job is read.

statuses: PASSED, WRONG_NUMERICS, WRONG_SHAPE, WRONG_DTYPE, RUNTIME_ERROR, TIMEOUT, NOT_DETERMINISTIC, CHEATS,
             NOT_JUDGED
exit status: 0 all passed, 1 one did not pass, 2 wrong usage, or nothing is known of one, 130 interrupted
"""

NEW = """\
examples:
  oracles new test net.py:Dense                a class that keeps its weights, a torch.nn.Module, a layer
  oracles new test ops.py:MyFunction           a torch.autograd.Function, a jax.custom_vjp
  oracles new test silu.py:forward,backward    a pair of functions
  oracles new layer GroupNorm                  in the folder of this project: layer, reference case, planted bugs, test

No file is overwritten.
"""

COMPLETION = """\
example:
  oracles completion bash > ~/.local/share/bash-completion/completions/oracles
  oracles completion zsh > ~/.zfunc/_oracles                                     a folder of $fpath
"""


class _Version(argparse.Action):
    """Print the version of this package and of all that take part in a verdict; they are looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:
        print(f"oracles of {versions_line()}")
        parser.exit(0)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; unknown commands and options are refused with the closest known one.

    Raises:
        SystemExit: with status 2 for wrong usage, and for no command at all, after the help; with 0 for ``--help``.
    """
    parser, commands = make_parsers()
    arguments = sys.argv[1:] if argv is None else list(argv)
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in commands.choices:
        known = ", ".join(commands.choices)
        parser.error(f"unknown command {name}{did_you_mean(name, commands.choices)}\nCommands are {known}.")
    args, unknown = parser.parse_known_args(arguments)
    command: argparse.ArgumentParser = commands.choices.get(args.command, parser)
    if unknown:
        command.error("; ".join(_unknown_argument(each, command, commands) for each in unknown))
    if args.command is None:
        parser.print_help()
        parser.exit(2)
    return args


def _unknown_argument(argument: str, command: argparse.ArgumentParser, commands: Commands) -> str:
    option = argument.partition("=")[0]
    if not option.startswith("-"):
        return f"unexpected argument {argument}"
    others = [f"oracles {name}" for name, other in commands.choices.items() if option in _options_of(other)]
    if others:
        return f"{command.prog} has no option {option}; it is one of {' and '.join(others)}"
    return f"unknown option {option}{did_you_mean(option, _options_of(command))}"


def _options_of(command: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a command, which its help lists."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", command.format_help())  # colours, from Python 3.14 on
    return set(re.findall(r"^  (?:-\w(?: \w+)?, )?(--[a-z-]+)", text, re.MULTILINE))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    return make_parsers()[0]


def make_parsers(layers: Sequence[str] | None = None) -> tuple[argparse.ArgumentParser, Commands]:
    """Return the parser of the whole command line, and those of its commands.

    Args:
        layers: the names of layers, for a parser of which a shell's completion is made.
    """
    parser = argparse.ArgumentParser(
        prog="oracles",
        description="Judge hand-written gradients by PyTorch, JAX and finite differences, with derived tolerances.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the versions of all that judges")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    list_ = commands.add_parser("list", help="list the layers that can be judged, and the source of their cases")
    _add_cases(list_, "also list")
    list_.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("conventions", help="the derivatives of manual_bp, torch and JAX at kinks")
    explain = commands.add_parser("explain", help="what a layer, a verdict or a property is")
    explain.add_argument("name", metavar="NAME", choices=layers, help="Linear, wrong, batch_is_a_sum, …")
    _add_verify(commands, layers)
    _add_check(commands)
    _add_campaign(commands)
    _add_judge(commands)
    _add_new(commands)
    completion = commands.add_parser(
        "completion",
        help="print the script by which a shell completes these commands",
        epilog=COMPLETION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument(
        "shell",
        metavar="SHELL",
        type=one_of(SHELLS),
        choices=None if layers is None else SHELLS,
        help=", ".join(SHELLS),
    )
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return parser, commands


def _add_new(commands: Commands) -> None:
    new = commands.add_parser(
        "new",
        help="write the files to start from: a layer of manual_bp, or a test of your own code",
        epilog=NEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument("what", metavar="KIND", type=one_of(("layer", "test")), help="layer or test")
    _a_file(new.add_argument("name", metavar="NAME", help="the layer's class, or FILE.py:NAME of what is tested"))


def _add_verify(commands: Commands, layers: Sequence[str] | None) -> None:
    verify = commands.add_parser(
        "verify",
        help="search for a point at which a layer's gradient is wrong",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "layers", nargs="*", metavar="LAYER", choices=layers, help="layers by name, see `oracles list`; default: all"
    )
    _add_cases(verify, "judge")
    verify.add_argument(
        "--against",
        type=some_of(FRAMEWORK_NAMES),
        choices=None if layers is None else FRAMEWORK_NAMES,
        metavar="NAMES",
        help="frameworks, comma-separated: torch,jax (default: those that are installed)",
    )
    _add_dtypes(verify, "float64,float32", None if layers is None else (*ALL_DTYPES, ALL))
    _add_blocks(verify)
    _add_properties(verify)
    verify.add_argument(
        "--max-examples", type=at_least(1), metavar="N", help=f"points per property (default: {VERIFY_POINTS})"
    )
    _a_file(
        verify.add_argument("--markdown", metavar="FILE", help="write them as Markdown, for the summary of a CI job")
    )
    verify.add_argument("--thorough", action="store_true", help="100 points per property")
    verify.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="the seed of the search (default: 0)")
    verify.add_argument(
        "-j", "--jobs", type=at_least(1), metavar="N", help="processes (default: one for each core, at most 8)"
    )
    _add_files(verify)
    how_much = verify.add_mutually_exclusive_group()
    how_much.add_argument(
        "-v", "--verbose", action="store_true", help="a line for each layer, oracle and dtype, and what was drawn"
    )
    how_much.add_argument("-q", "--quiet", action="store_true", help="what is refused, and the last line")


def _add_campaign(commands: Commands) -> None:
    campaign = commands.add_parser(
        "campaign",
        help="search for hours, with any number of workers on any number of machines",
        usage="oracles campaign [LAYER ...] --store DIR_OR_URL [--budget 8h] [--on local|ray|dask] [options]\n"
        "       oracles campaign status|report DIR_OR_URL [--html FILE] [--json FILE]",
        epilog=CAMPAIGN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    campaign.add_argument(
        "layers", nargs="*", metavar="LAYER", help="layers by name, default: all; or status or report, and a store"
    )
    _add_cases(campaign, "search")
    _a_file(campaign.add_argument("--store", metavar="DIR_OR_URL", help="what the workers share, and the results"))
    campaign.add_argument("--budget", type=duration, default=3600.0, metavar="TIME", help="8h, 90m, 30s (default: 1h)")
    campaign.add_argument("--on", type=one_of(ENGINES), default="local", metavar="ENGINE", help=", ".join(ENGINES))
    campaign.add_argument("--address", metavar="ADDRESS", help="of the Ray or Dask cluster (default: one is started)")
    campaign.add_argument("-j", "--jobs", type=at_least(1), metavar="N", help="workers (default: one for each core)")
    campaign.add_argument(
        "--against", type=some_of(FRAMEWORK_NAMES), metavar="NAMES", help="frameworks, comma-separated: torch,jax"
    )
    _add_dtypes(campaign, "float64,float32")
    _add_blocks(campaign)
    _add_properties(campaign)
    campaign.add_argument(
        "--max-examples",
        type=at_least(1),
        default=VERIFY_POINTS,
        metavar="N",
        help=f"points of each seed (default: {VERIFY_POINTS})",
    )
    campaign.add_argument(
        "--climb",
        type=at_least(0),
        metavar="N",
        help="points of each seed besides that climb towards the worst error / tolerance (default: a third of those)",
    )
    campaign.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="the first seed (default: 0)")
    campaign.add_argument(
        "--seeds-per-unit", type=at_least(1), default=CAMPAIGN_BLOCK, metavar="N", help=f"(default: {CAMPAIGN_BLOCK})"
    )
    campaign.add_argument(
        "--rounds", type=at_least(1), metavar="N", help="units of each search after which the campaign ends"
    )
    _a_file(
        campaign.add_argument(
            "--examples-from", metavar="DIR_OR_URL", help="replay these examples of Hypothesis too, and change none"
        )
    )
    campaign.add_argument("--code", metavar="CODE", help="status, report: of this code, as status names it")
    _a_file(campaign.add_argument("--json", metavar="FILE", help="write what is found as JSON, atomically"))
    _a_file(campaign.add_argument("--html", metavar="FILE", help="write it as a page to look at, in one file"))


def _add_check(commands: Commands) -> None:
    check = commands.add_parser(
        "check",
        help="judge one function or class of yours, in a file or a module",
        usage="oracles check TARGET [--against FRAMEWORK:REF ...] [--primals FILE.npz | --shapes SHAPES] [options]",
        epilog=CHECK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _a_file(check.add_argument("target", metavar="TARGET", help="the subject: FILE.py:NAME or MODULE:NAME"))
    check.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="FRAMEWORK:REF",
        help="a reference: torch:REF or jax:REF; repeatable",
    )
    where = check.add_mutually_exclusive_group()
    _a_file(where.add_argument("--primals", metavar="FILE.npz", help="the point: arrays by name"))
    where.add_argument("--shapes", metavar="SHAPES", help='draw the point: shapes by name, "z=4,3 W=3,2 b=1,2"')
    check.add_argument(
        "--delta",
        metavar="FILE",
        help="the cotangent of the output: .npy, or .npz in the order of the outputs (default: three drawn ones)",
    )
    _add_dtypes(check, "float64 where primals are drawn, else their own")
    _add_blocks(check)
    _add_properties(check)
    check.add_argument(
        "--batched",
        type=names_of("names of primals"),
        default=(),
        metavar="NAMES",
        help="the primals whose first axis holds independent rows, for batch_invariant and chunk_invariant",
    )
    _add_conditions(check)
    check.add_argument("--script", metavar="OUT.py", help="if refused, write a stand-alone file that reproduces it")
    _add_files(check)
    check.add_argument("-q", "--quiet", action="store_true", help="print the first line of the report")


def _add_judge(commands: Commands) -> None:
    judge = commands.add_parser(
        "judge",
        help="judge code that is not trusted: one subject, or a file of jobs",
        usage="oracles judge --subject FILE.py:NAME --reference REF --cases FILE [options]\n"
        "       oracles judge --batch JOBS.jsonl --json OUT.jsonl [options]",
        epilog=JUDGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _a_file(judge.add_argument("--subject", metavar="SUBJECT", help="FILE.py:NAME, which this process never imports"))
    judge.add_argument(
        "--reference", action="append", default=[], metavar="REF", help="what is right, of a trusted file; repeatable"
    )
    _a_file(judge.add_argument("--cases", metavar="CASES", help="where it is judged"))
    _a_file(judge.add_argument("--batch", metavar="JOBS.jsonl", help="judge the jobs of a file; - is standard input"))
    _a_file(judge.add_argument("--json", metavar="OUT", help="write the judgement as JSON, of a batch one a line"))
    judge.add_argument("--resume", action="store_true", help="keep the judgements that OUT has, and judge the others")
    judge.add_argument("--seconds", type=float, default=10.0, metavar="T", help="the limit of a call (default: 10)")
    judge.add_argument(
        "--memory", type=at_least(16), default=2048, metavar="MB", help="memory of the subject (default: 2048)"
    )
    judge.add_argument(
        "--processes", type=at_least(1), default=64, metavar="N", help="processes and threads of it (default: 64)"
    )
    judge.add_argument(
        "--forbid", type=names_of("names of packages"), default=(), metavar="NAMES",
        help="packages that it must not use, torch,jax; torch.autograd forbids torch's own derivatives",
    )  # fmt: skip
    judge.add_argument("--seed", type=at_least(0), metavar="S", help="of all draws (default: a new one)")
    judge.add_argument("-j", "--jobs", type=at_least(1), metavar="N", help="processes of a batch (default: the cores)")
    judge.add_argument(
        "--diagnosis", action="store_true", help="of a batch: diagnose each refusal, which takes seconds"
    )
    judge.add_argument("--no-diagnosis", action="store_true", help="of one subject: diagnose no refusal")
    judge.add_argument("--schema", action="store_true", help="print the JSON Schema of jobs and judgements")


def _add_dtypes(command: argparse.ArgumentParser, default: str, choices: Sequence[str] | None = None) -> None:
    """Add the dtypes to judge in; what several options name is joined."""
    command.add_argument(
        "--dtype",
        action="extend",
        type=dtypes_of,
        choices=choices,
        metavar="NAMES",
        help=f"dtypes to judge in: {', '.join(ALL_DTYPES)}, or all; comma-separated, repeatable (default: {default})",
    )


def _add_blocks(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--blocks",
        type=block_sizes,
        default=(),
        metavar="SIZES",
        help="the tiles of the code, comma-separated: where cases are drawn, axes get sizes around their multiples too",
    )


def _add_properties(command: argparse.ArgumentParser) -> None:
    """Add the properties that are judged on request alone."""
    command.add_argument(
        "--properties",
        type=some_of(INVARIANCES),
        default=(),
        metavar="NAMES",
        help=f"judge besides, comma-separated: {', '.join(INVARIANCES)}",
    )
    command.add_argument(
        "--order", type=int, choices=(1, 2), default=1, help="2: judge the derivative of the pullback too (default: 1)"
    )
    command.add_argument(
        "--mode",
        choices=MODES,
        default="vjp",
        help="jvp: judge the forward mode, both: that and the pullback (default: vjp)",
    )


def _add_conditions(check: argparse.ArgumentParser) -> None:
    """Add the options that say how a point is judged, and how many."""
    check.add_argument(
        "--precision",
        metavar="NAME",
        help="the precision that the subject computes in, if lower than its inputs: float32",
    )
    check.add_argument(
        "--outputs",
        type=names_or_positions,
        metavar="NAMES",
        help="the outputs that are judged, by name or position, with commas: loss,0; all by default",
    )
    check.add_argument(
        "--numerics",
        metavar="WHAT",
        help="what the subject stores, sums and multiplies in: bfloat16/float32/tf32, and /once or /each rounding",
    )
    check.add_argument(
        "--kinks",
        type=one_of(("any", "declared")),
        metavar="NAME",
        help="at points without a derivative, accept any subgradient, or the references' own (default: any)",
    )
    check.add_argument(
        "--device",
        metavar="NAME",
        help="where the arrays of a torch, JAX or CuPy subject lie, and torch computes the reference: cuda, cuda:1",
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


def _add_files(command: argparse.ArgumentParser) -> None:
    """Add the files that results are written to, and the earlier one that they are compared with."""
    _a_file(command.add_argument("--json", metavar="FILE", help="write the results as JSON, atomically"))
    _a_file(command.add_argument("--html", metavar="FILE", help="write them as a page to look at, in one file"))
    _a_file(command.add_argument("--compare", metavar="FILE", help="an earlier JSON: the page shows what has changed"))


def _a_file(action: argparse.Action) -> None:
    """Let a shell complete an argument by files."""
    action.complete = FILES  # type: ignore[attr-defined]  # what shtab reads


def _add_cases(command: argparse.ArgumentParser, verb: str) -> None:
    command.add_argument(
        "--cases",
        action="append",
        default=[],
        metavar="MODULE",
        help=f"{verb} what @oracles.oracle_for registers in this module or .py file; repeatable",
    )
