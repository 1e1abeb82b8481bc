"""Notes of one judgement: what the judge could not do, which is no reason to refuse."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from time import monotonic
from typing import ParamSpec

from oracles.verdict import Result

P = ParamSpec("P")
_NOTES: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Add a note to the result of the judgement that runs at present."""
    notes = _NOTES.get()
    if notes is not None and text not in notes:
        notes.append(text)


def with_notes(judge: Callable[P, Result]) -> Callable[P, Result]:
    """Decorate a function so that its result has the notes that were made while it ran, and the time that it took."""

    @wraps(judge)
    def judge_with_notes(*args: P.args, **named: P.kwargs) -> Result:
        notes: list[str] = []
        began = monotonic()
        token = _NOTES.set(notes)
        try:
            result = judge(*args, **named)
        finally:
            _NOTES.reset(token)
        return replace(result, notes=tuple(dict.fromkeys((*result.notes, *notes))), seconds=monotonic() - began)

    return judge_with_notes
