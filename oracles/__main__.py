"""The command line: ``oracles verify``, ``check``, ``judge``, ``campaign``, ``list``, ``new`` and others."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

from oracles.cli.errors import BrokenFile
from oracles.cli.parser import make_parser, parse
from oracles.cli.supervision import EXIT_SKIPPED, INTERRUPTED, READER_GONE, supervised
from oracles.environment import pin_threads
from oracles.options import DTYPE_NAMES, PROFILES, VERIFY_POINTS, derivative_properties

__all__ = ["main", "make_parser"]

# Before any import of NumPy, torch or JAX: they read the number of threads when they are loaded.
pin_threads()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; without ``argv``, as a program of its own."""
    args = parse(argv)
    return supervised(partial(_complete, args), args.command or "") if argv is None else _complete(args)


def _complete(args: argparse.Namespace) -> int:
    """Run a command to its end, whatever the code under judgement does."""
    try:
        with warnings.catch_warnings():
            status = _run(args)
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        return _without_reader()
    except BrokenFile as error:
        print(f"oracles: {error}", file=sys.stderr)  # without the usage: the command line is right
        raise SystemExit(2) from None
    except (ValueError, ModuleNotFoundError) as error:
        from oracles.missing import missing_of  # needs NumPy

        missing = missing_of(error)
        if missing is not None:
            print(f"oracles: skipped, {error if isinstance(error, ValueError) else missing}", file=sys.stderr)
            return EXIT_SKIPPED
        if isinstance(error, ModuleNotFoundError):
            raise
        complaint = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as leaving:  # none of ours: those are raised outside of this
        print(f"oracles: the code under judgement raised SystemExit: {leaving}", file=sys.stderr)
        return 1
    _refuse(args, complaint)


def _without_reader() -> int:
    """Let nothing more be written to standard output, which nobody reads, and return the status for that."""
    with suppress(OSError, ValueError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_GONE


def _refuse(args: argparse.Namespace, complaint: str) -> NoReturn:
    """Exit with status 2 and the complaint, after the usage of the command that was given."""
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
    if args.command == "campaign":
        from oracles.cli.campaign_command import campaign

        return campaign(args)
    if args.command == "judge":
        from oracles.cli.judge_command import judge_command

        return judge_command(args)
    if args.command == "completion":
        from oracles.cli.completion import print_completion

        return print_completion(args.shell)
    if args.command == "new":
        from oracles.cli.new_command import new

        return new(args)
    if args.command == "explain":
        from oracles.cli.explain_command import explain

        return explain(args.name)
    from oracles.cli import layer_commands

    if args.command == "list":
        return layer_commands.list_layers(args.cases, as_json=args.json)
    if args.command == "conventions":
        return layer_commands.list_conventions()
    from oracles.cli.verify_command import Output, verify
    from oracles.cli.workers import available_cores

    return verify(
        args.layers,
        against=args.against,
        dtypes=tuple(dict.fromkeys(args.dtype or DTYPE_NAMES)),
        max_examples=args.max_examples or (PROFILES["default"] if args.thorough else VERIFY_POINTS),
        seed=args.seed,
        cases=args.cases,
        blocks=args.blocks,
        properties=(*args.properties, *derivative_properties(args.order, args.mode)),
        jobs=args.jobs or available_cores(),
        output=Output(
            args.json, args.verbose, args.quiet, html_path=args.html, compare=args.compare, markdown_path=args.markdown
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
