"""Call the user's code, which may raise anything, and go on with the exception as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from oracles.process_state import steers_a_run

T = TypeVar("T")


@dataclass(frozen=True)
class Raised:
    """The exception that a call raised."""

    error: Exception


def attempt(call: Callable[[], T], *, reraise: tuple[type[Exception], ...] = ()) -> T | Raised:
    """Return the result of a call of the user's code, or what it raised.

    Args:
        call: the call.
        reraise: the exceptions that are raised nevertheless: those of the judge itself.
    """
    try:
        return call()
    except reraise:
        raise
    # A subject, a reference or a constructor is anybody's code, often run at points, in dtypes or on types of arrays
    # for which nobody tried it, so no narrower class of exceptions is known. That it raises is a result of the judge
    # and not its failure. KeyboardInterrupt is no `Exception`, and ends the run; so do the exceptions of pytest and
    # Hypothesis. SystemExit in a Rule arrives here as `ProcessEnded`.
    except Exception as error:
        if steers_a_run(error):
            raise
        return Raised(error)
