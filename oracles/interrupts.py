"""An interrupt that is not lost where it arrives.

Python raises KeyboardInterrupt in whatever code runs when the signal comes. Where that is a callback whose exceptions
are ignored (Hypothesis times the garbage collector in one; any ``__del__`` is another), the interrupt is printed and
forgotten, and a long run goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def remembered() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if one came since, to be called wherever the run may stop.

    The signal still raises where it arrives. Where Python does not raise for it (another thread than the main one, a
    shell that lets its background jobs ignore it, a handler of the caller's own) nothing changes.
    """
    came = threading.Event()

    def again() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    def handler(signum: int, frame: object) -> None:
        came.set()
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield again
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield again
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
