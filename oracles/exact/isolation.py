"""Run ball arithmetic on somebody's code where a crash does no harm: in a forked copy of this process.

Code that is right on floats may still take an array of Python objects for numbers: a view past the end of a buffer,
or compiled code that is given a pointer, then ends the interpreter. The layers of manual_bp run in this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import RLock
from types import FunctionType
from typing import Any, TypeVar
from weakref import ref

import numpy as np

from oracles.constants import BALL_SECONDS, BALL_SERVERS
from oracles.forked import Crashed, ForkedServer
from oracles.notes import note
from oracles.rule import NotPerturbable, Rule
from oracles.user_code import Raised, attempt

T = TypeVar("T")
FLINT = RLock()  # python-flint has one precision for the whole process


def apart(rule: Rule, function: Callable[..., T], *args: object) -> T:
    """Return ``function(rule, *args)``, computed in a copy of this process unless the rule is a layer of manual_bp.

    One copy serves one rule, since a fork of a process with torch and JAX takes about 10 ms.

    Args:
        rule: the subject.
        function: a function of a module, which is pickled by its name.
        args: its further arguments; they and the result are pickled.

    Raises:
        NotPerturbable: if the code ends its process, takes too long, or raises, or the system cannot fork.
    """

    def evaluate() -> T:
        return function(rule, *args) if is_own_layer(rule) else _in_a_copy(rule, function, *args)

    # A fault of the judge may be of any type, and must not count against the subject.
    result = attempt(evaluate, reraise=(NotPerturbable,))
    if isinstance(result, Raised):
        error = f"{type(result.error).__name__}: {result.error}"
        note(f"ball arithmetic steps aside: it raised {error}")
        raise NotPerturbable(f"{rule.name}: ball arithmetic failed: {error}") from result.error
    return result


def _in_a_copy(rule: Rule, function: Callable[..., T], *args: object) -> T:
    if not hasattr(os, "fork"):
        raise NotPerturbable(f"{rule.name}: ball arithmetic on foreign code needs a system that can fork")
    with FLINT:
        server = _server_of(rule)
        if server.crash:
            raise NotPerturbable(server.crash)
        try:
            result: T = server.process.ask(BALL_SECONDS, function, *args)
        except Crashed as crash:
            server.crash = f"ball arithmetic steps aside: on arrays of numbers with radii, {rule.name} gave {crash}"
            note(server.crash)
            raise NotPerturbable(server.crash) from crash
        return result


@dataclass
class _Server:
    """The copy that serves a rule, and how it ended."""

    rule: ref[Rule]
    process: ForkedServer
    crash: str = ""


_SERVERS: list[_Server] = []


def _server_of(rule: Rule) -> _Server:
    """Return the server of a rule, the same as before if it has one; end those that are not needed any more."""
    found = next((s for s in _SERVERS if s.rule() is rule and (s.crash or s.process.is_alive)), None)
    if found is None:
        found = _Server(ref(rule), ForkedServer(lambda function, *args: function(rule, *args)))
    kept = [found, *(s for s in _SERVERS if s is not found and s.rule() is not None and s.process.is_alive)]
    for server in _SERVERS:
        if server not in kept[:BALL_SERVERS] and server is not found:
            server.process.close()
    _SERVERS[:] = kept[:BALL_SERVERS]
    return found


def close_servers() -> None:
    """End all copies at once. Until they end, they hold open what this process had open when they were made."""
    for server in _SERVERS:
        server.process.close()
    _SERVERS.clear()


def is_own_layer(rule: Rule) -> bool:
    """Return whether a rule was made from operations of manual_bp alone, which do not crash on any array."""
    adapted = str(getattr(rule.evaluate, "__module__", "")).startswith("oracles.")
    return adapted and rule.implementation is not None and _is_own(rule.implementation)


def _is_own(value: Any) -> bool:
    if value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic | np.dtype):
        return True
    if isinstance(value, tuple | list):
        return _all_own(value)
    if isinstance(value, dict):
        return _all_own(value.values())
    is_code = isinstance(value, FunctionType | type)
    if str((value if is_code else type(value)).__module__).partition(".")[0] != "manual_bp":
        return False
    return is_code or _all_own(getattr(value, "__dict__", {}).values())


def _all_own(values: Iterable[Any]) -> bool:
    return all(map(_is_own, values))
