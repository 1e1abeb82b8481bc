"""The time that one judgement may take. When it is over, what is known so far is the result.

Between two evaluations the judge asks whether time is left. One evaluation is never interrupted: the code under
judgement would be left in the middle. A judgement without a budget takes as long as it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from time import monotonic

_DEADLINE: ContextVar[float] = ContextVar("deadline", default=inf)


class OutOfTime(BaseException):
    """No time is left. It is no `Exception`, so that nothing takes it for one of the code under judgement."""


@contextmanager
def time_budget(seconds: float) -> Iterator[None]:
    """Give the block so many seconds, or what is left of an outer budget."""
    token = _DEADLINE.set(min(_DEADLINE.get(), monotonic() + seconds))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def deadline() -> float:
    """Return the time of `time.monotonic` at which the budget is over; infinite without one."""
    return _DEADLINE.get()


def is_out_of_time() -> bool:
    """Return whether no time is left."""
    return monotonic() > _DEADLINE.get()


def require_time() -> None:
    """Return if time is left.

    Raises:
        OutOfTime: if none is.
    """
    if is_out_of_time():
        raise OutOfTime
