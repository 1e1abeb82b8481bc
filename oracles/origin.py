"""Where an exception comes from, in the user's own files."""

from __future__ import annotations

from pathlib import Path
from traceback import extract_tb

_PACKAGE = str(Path(__file__).parent)


def raised_at(error: BaseException) -> str:
    """Say what was raised, and at which line of a file that is neither ours nor an installed package's."""
    frames = [f for f in extract_tb(error.__traceback__) if not f.filename.startswith((_PACKAGE, "<"))]
    own = [f for f in frames if "site-packages" not in f.filename]
    where = f"{own[-1].filename}:{own[-1].lineno} in {own[-1].name}: " if own else ""
    return f"{where}{type(error).__name__}: {error}"
