"""What the judge does at present, in words, for whoever shows it; where nobody listens, nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

# (stage, or None for the last one; what is done within it, or "")
Listener: TypeAlias = Callable[[str | None, str], object]
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


def announce(stage: str | None, within: str = "") -> None:
    """Tell the listener, if there is one, what is done from here on.

    Args:
        stage: the stage that begins; ``None`` for one that goes on.
        within: what is done within the stage.
    """
    listener = _LISTENER.get()
    if listener is not None:
        listener(stage, within)


@contextmanager
def announced_to(listener: Listener) -> Iterator[None]:
    """Call the listener with all that is announced in the block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
