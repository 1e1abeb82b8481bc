"""The command line: ``oracles list``, ``conventions``, ``verify`` and ``check``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from oracles.cli.parser import parser
from oracles.threads import pin_threads

pin_threads()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status. What a command needs is imported when it runs."""
    args = parser().parse_args(argv)
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
    """Stop for wrong usage, with the usage of the command that was asked for."""
    command: argparse.ArgumentParser = args.parser
    command.error(complaint)


def _run(args: argparse.Namespace) -> int:
    from oracles.discovery import BrokenCases

    warnings.simplefilter("ignore", BrokenCases)  # the commands tell it in their own words
    if args.command == "list":
        from oracles.cli.listing import list_layers

        return list_layers(args.cases)
    if args.command == "conventions":
        from oracles.cli.listing import list_conventions

        return list_conventions()
    if args.command == "check":
        from oracles.cli.check_command import check

        return check(args)
    from oracles.cli.verify_command import verify

    return verify(
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
