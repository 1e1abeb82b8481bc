"""The command line: ``oracles list``, ``conventions``, ``verify`` and ``check``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from oracles.cli.parser import make_parser
from oracles.environment import pin_threads

pin_threads()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    args = make_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            return _run(args)
    except ValueError as error:
        _refuse(args, str(error))
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "hypothesis", "rich"):
            raise
        _refuse(args, f"{error.name} is not installed.\nFix:    pip install 'manual-bp[oracles]'")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _refuse(args: argparse.Namespace, complaint: str) -> NoReturn:
    """Exit with status 2, after the usage of the command that was given and the complaint."""
    command: argparse.ArgumentParser = args.parser
    command.error(complaint)


def _run(args: argparse.Namespace) -> int:
    """Run a command. Its modules are imported here, so that ``--help`` loads neither NumPy nor Hypothesis."""
    from oracles.discovery import BrokenCases

    warnings.simplefilter("ignore", BrokenCases)  # the commands print these complaints themselves
    if args.command == "check":
        from oracles.cli.check_command import check

        return check(args)
    from oracles.cli import verify_command

    if args.command == "list":
        return verify_command.list_layers(args.cases)
    if args.command == "conventions":
        return verify_command.list_conventions()
    return verify_command.verify(
        args.layers,
        against=args.against,
        dtypes=args.dtype,
        max_examples=args.max_examples,
        seed=args.seed,
        json_path=args.json,
        cases=args.cases,
    )


if __name__ == "__main__":
    sys.exit(main())
