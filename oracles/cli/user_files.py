"""Import what a user names, and say in one line what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from oracles.cli.errors import BrokenFile
from oracles.environment import describe_error
from oracles.options import NEEDED
from oracles.registry import Entry, Unusable, entries_of, load


def import_source(source: str) -> ModuleType:
    """Import a file or module.

    Raises:
        Unusable: (a ValueError) if it does not exist.
        BrokenFile: (a ValueError) for whatever it raises.
    """
    with _importing(source):
        return load(source)


def cases_in(module: str) -> list[Entry]:
    """Import a module or file of cases and return its entries.

    Raises:
        Unusable: (a ValueError) if it does not exist or registers nothing.
        BrokenFile: (a ValueError) for whatever it raises.
    """
    with _importing(module):
        return entries_of(module)


@contextmanager
def _importing(source: str) -> Iterator[None]:
    try:
        yield
    except Unusable:
        raise
    except SyntaxError as error:
        where = _shown(error.filename or source)
        raise BrokenFile(f"{where}:{error.lineno or 0}: {type(error).__name__}: {error.msg}") from error
    # A module of the user's may raise anything, and may try to end the process.
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in NEEDED:
            raise  # it is this package that lacks it
        raise BrokenFile(f"{source} cannot be imported: {describe_error(error)}") from error


def _shown(path: str) -> str:
    """Return a path as short as it is clear: relative within the current folder."""
    return os.path.relpath(path) if Path(path).absolute().is_relative_to(Path.cwd()) else path
