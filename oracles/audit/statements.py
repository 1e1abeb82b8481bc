"""Where a comparison stands: the line of the test, and the statement of its source."""

from __future__ import annotations

import ast
import functools
import linecache
from types import FrameType
from typing import NamedTuple


class Place(NamedTuple):
    """The innermost line of the test's own file, and the line that called the comparison if that is another one."""

    file: str
    line: int
    through: str
    statement: str  # the text of the statement that called the comparison
    caller: str  # the module of it
    in_test_file: bool


def place_of(frame: FrameType, test_file: str) -> Place:
    """Return where a comparison stands, given the frame that called it and the file of the test."""
    caller, line = frame.f_code.co_filename, frame.f_lineno
    module, statement = str(frame.f_globals.get("__name__", "")), statement_at(caller, line)
    walked: FrameType | None = frame
    while walked is not None and walked.f_code.co_filename != test_file:
        walked = walked.f_back
    if walked is None:
        return Place(caller, line, "", statement, module, False)
    through = "" if walked is frame else f"{caller}:{line}"
    return Place(test_file, walked.f_lineno, through, statement, module, caller == test_file)


def is_assertion(place: Place, name: str) -> bool:
    """Return whether a call that returns a result is one of a test, rather than a decision of the code under test.

    A call in the test's own file is, and one in a statement that asserts. Of ``isclose`` the test must want all
    entries; whether it does is read in the statement.
    """
    wants_all = name != "isclose" or "all(" in place.statement or place.statement.startswith("assert np.isclose(")
    return wants_all and (place.in_test_file or "assert" in place.statement)


def statement_at(file: str, line: int) -> str:
    """Return the text of the simple statement at a line of a file; of a compound one the line itself."""
    lines = linecache.getlines(file)
    first, last = _statements(file, len(lines)).get(line, (line, line))
    return "".join(lines[first - 1 : last]).strip()


@functools.lru_cache(maxsize=256)
def _statements(file: str, length: int) -> dict[int, tuple[int, int]]:
    """Return the first and last line of the simple statement at each line."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return {}
    simple = (ast.Assert, ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Raise)
    found = (node for node in ast.walk(tree) if isinstance(node, simple))
    return {
        line: (node.lineno, node.end_lineno or node.lineno)
        for node in found
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
