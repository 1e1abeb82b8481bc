"""The command line: ``oracles list``, ``conventions``, ``verify`` and ``check``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from oracles.command_line.parser import parser
from oracles.threads import pin_threads

pin_threads()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status. What a command needs is imported when it runs."""
    args = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            return _run(args)
    except ValueError as error:
        told: argparse.ArgumentParser = args.parser  # the command's own, which shows its usage
        told.error(str(error))


def _run(args: argparse.Namespace) -> int:
    from oracles.discovery import BrokenCases

    warnings.simplefilter("ignore", BrokenCases)  # the commands tell it in their own words
    if args.command == "list":
        from oracles.command_line.listing import list_layers

        return list_layers(args.cases)
    if args.command == "conventions":
        from oracles.command_line.listing import list_conventions

        return list_conventions()
    if args.command == "check":
        from oracles.command_line.check import check

        return check(args)
    from oracles.verify import verify

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
