"""Import what a user names, and say in one line what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from oracles.cli.errors import BrokenFile
from oracles.environment import describe_error
from oracles.missing import MissingPackage, missing_of
from oracles.registry import Entry, Unusable, entries_of, load


def import_source(source: str) -> ModuleType:
    """Import a file or module.

    Raises:
        Unusable: (a ValueError) if it does not exist.
        MissingPackage: (a ValueError) if it needs a package of an extra that is not installed.
        BrokenFile: (a ValueError) for whatever else it raises.
    """
    with _importing(source):
        return load(source)


def cases_in(module: str) -> list[Entry]:
    """Import a module or file of cases and return its entries.

    Raises:
        Unusable: (a ValueError) if it does not exist or registers nothing.
        MissingPackage: (a ValueError) if it needs a package of an extra that is not installed.
        BrokenFile: (a ValueError) for whatever else it raises.
    """
    with _importing(module):
        return entries_of(module)


@contextmanager
def user_errors(doing: str) -> Iterator[None]:
    """Turn whatever the user's code raises into an `Unusable` that starts with ``doing``."""
    try:
        yield
    except Unusable:
        raise
    # A module, a constructor or an expression of the user's may raise anything, and may try to end the process.
    except (Exception, SystemExit) as error:
        raise Unusable(f"{doing}: {type(error).__name__}: {error}") from error


@contextmanager
def _importing(source: str) -> Iterator[None]:
    try:
        with user_errors(f"{source} cannot be imported"):
            yield
    except Unusable as unusable:
        cause = unusable.__cause__
        if isinstance(cause, SyntaxError):
            where = f"{_shown(cause.filename or source)}:{cause.lineno or 0}"
            raise BrokenFile(f"{where}: {type(cause).__name__}: {cause.msg}") from cause
        missing = missing_of(cause)
        if missing is not None:
            raise MissingPackage([missing], f"{source} cannot be imported: ") from cause
        if cause is None:
            raise
        raise BrokenFile(f"{source} cannot be imported: {describe_error(cause)}") from cause


def _shown(path: str) -> str:
    """Return a path as short as it is clear: relative within the current folder."""
    return os.path.relpath(path) if Path(path).absolute().is_relative_to(Path.cwd()) else path
