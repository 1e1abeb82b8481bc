"""Call the user's code, which may raise anything; tell its exceptions from those of the judge itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import walk_tb
from typing import TypeVar

from oracles.process_state import steers_a_run
from oracles.rule import InternalError, InvalidInput, ReferenceFailed

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


# Modules that call the user's code, or convert what it takes and returns: an exception that they raise is about it.
_USERS_SIDE = (
    "oracles.adapters", "oracles.backends", "oracles.cli", "oracles.decision.judge", "oracles.evaluations",
    "oracles.forked", "oracles.functionals", "oracles.invariance", "oracles.layouts", "oracles.lazy_modules",
    "oracles.nondeterminism", "oracles.point", "oracles.process_state", "oracles.properties", "oracles.references",
    "oracles.rule", "oracles.self_consistency", "oracles.signatures", "oracles.untrusted.remote", "oracles.user_code",
)  # fmt: skip


def part_of_judge(error: BaseException) -> str:
    """Return the module of the judge whose own code raised an exception; "" if the user's code did.

    The judge evaluates the user's code in many places. What counts is the last module of this package on the way: the
    user's code, and NumPy under it, is called by an adapter.
    """
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)]
    own = [name for name in modules if name.partition(".")[0] == "oracles"]
    return own[-1] if own and not own[-1].startswith(_USERS_SIDE) else ""


def describe_fault(error: BaseException) -> str:
    """Describe an exception of the judge itself, or of code that it called where nothing may be concluded from it."""
    return f"{part_of_judge(error) or 'code under judgement'} raised {type(error).__name__}: {error}"


@contextmanager
def own_faults() -> Iterator[None]:
    """Raise `InternalError` for exceptions inside the block: nothing is concluded from them about the subject."""
    try:
        yield
    except (InternalError, InvalidInput, ReferenceFailed):
        raise
    except Exception as error:  # a fault of ours may be of any type
        if steers_a_run(error):
            raise
        raise InternalError(f"nothing is known about the subject: {describe_fault(error)}") from error
