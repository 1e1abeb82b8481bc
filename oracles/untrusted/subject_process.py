"""The process of a subject: load it, evaluate it as the judge asks, and send what it returns.

Nothing that this process says is believed: a stranger's code runs in it, and may have changed all of it. It is given
the point of a call and nothing else.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oracles.backends.devices import Elsewhere
from oracles.cli.subjects import adapt, find_target
from oracles.constants import MOST_TEXT
from oracles.nondeterminism import NAN_BYTE, fill_freed_memory
from oracles.outputs import Outputs
from oracles.rule import Array, Delta, Pullback, Rule, describe
from oracles.untrusted.forbidding import Watch
from oracles.untrusted.template import Start
from oracles.untrusted.wire import Ended, name_of, read_question, send_answer

SUBJECT_FILE = "subject.py"


def serve(connection: socket.socket, start: Start, scratch: str) -> None:
    """Load a subject and answer questions about it until the connection closes.

    A question is ``(kind, number, released, arrays, is_tuple)``: of kind "output", the primals by name, for a new
    evaluation of that number; of kind "cotangents" the parts of a cotangent of its output. The evaluations that are
    ``released`` have no further questions.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _draw_new_seeds()
    watch = Watch(start.hidden_packages, start.forbids_autograd)
    rule = _answered(connection, partial(_loaded, start, scratch), watch)
    if rule is None:
        return
    send_answer(connection, {"kind": "ready"}, {})
    pullbacks: dict[int, Pullback] = {}
    while True:
        try:
            kind, number, released, packed, is_tuple = read_question(connection)
        except Ended:
            return
        for each in released:
            pullbacks.pop(each, None)
        arrays = {n: parts.array() for n, parts in packed.items()}
        before = {n: a.tobytes() for n, a in arrays.items()}
        fill_freed_memory({a.nbytes for a in arrays.values()}, NAN_BYTE)
        if kind == "output":
            value = _answered(connection, partial(_forward, rule, arrays, pullbacks, number), watch)
        else:
            delta = tuple(arrays.values()) if is_tuple else arrays["0"]
            value = _answered(connection, partial(_pulled, pullbacks[number], delta), watch)
        if value is not None:
            written = [n for n, a in arrays.items() if a.tobytes() != before[n]]
            _send(connection, {"kind": kind, "written": written, "forbidden": watch.seen()}, value[0])


def _forward(rule: Rule, arrays: Mapping[str, Array], pullbacks: dict[int, Pullback], number: int) -> tuple[Any]:
    y, pullbacks[number] = rule.evaluate(**arrays)
    return (y,)


def _pulled(pullback: Pullback, delta: Delta) -> tuple[Any]:
    return (dict(pullback(delta)),)


def _answered(connection: socket.socket, evaluate: Callable[[], Any], watch: Watch) -> Any:
    """Return a value, or tell the judge what the subject raised, and return ``None``."""
    try:
        return evaluate()
    except BaseException as error:  # SystemExit too: the judge asks further
        text = f"{type(error).__name__}: {error}"[:MOST_TEXT]
        send_answer(connection, {"kind": "raised", "error": text, "forbidden": watch.seen()}, {})
        return None


def _loaded(start: Start, scratch: str) -> Rule:
    """Return the subject as a Rule."""
    source, _, name = start.target.partition(".py:")
    path = f"{source}.py"
    if start.source:
        path = str(Path(scratch, SUBJECT_FILE))
        Path(path).write_text(start.source)
    for package in start.hidden_packages:
        sys.modules[package] = None  # type: ignore[assignment]  # an import of it raises
    subject, name, _ = find_target(f"{path}:{name}")
    return adapt(subject, name=name, source=path)


def warm_up() -> None:
    """Evaluate a subject of no interest, so that what is loaded at a first call is loaded before the forks."""
    rule = adapt((lambda z: (z, None), lambda cache, delta: {"z": delta}), name="identity")
    y, pullback = rule.evaluate(z=np.ones((2, 2)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _send(theirs, {"kind": "cotangents"}, dict(pullback(y)))
        fill_freed_memory({32}, NAN_BYTE)


def _draw_new_seeds() -> None:
    """Give this process other random numbers than those of the process that it was forked from."""
    seed = int.from_bytes(os.urandom(4))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the generator of whoever uses the global one
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _send(connection: socket.socket, header: Mapping[str, Any], value: Any) -> None:
    """Send outputs or cotangents: numbers as such, anything else described in words."""
    is_tuple = isinstance(value, tuple) or (isinstance(value, list) and all(isinstance(v, np.ndarray) for v in value))
    if header["kind"] == "output":
        parts = {str(i): part for i, part in enumerate(value if is_tuple else (value,))}
    else:
        parts = {str(n): part for n, part in value.items()}
    arrays: dict[str, Array | float] = {}
    other: dict[str, str] = {}
    for name, part in parts.items():
        array = _numbers(part)
        if array is None:
            other[name] = "None" if part is None else describe(part)[:MOST_TEXT]
        else:
            arrays[name] = array
    names = list(value.names) if isinstance(value, Outputs) else []
    send_answer(connection, {**header, "is_tuple": is_tuple, "names": names, "other": other}, arrays)


def _numbers(part: Any) -> Array | float | None:
    """Return a part of an answer if it consists of numbers; ``None`` otherwise."""
    if type(part) is float:
        return part
    if isinstance(part, Elsewhere) or not isinstance(part, np.ndarray | np.generic):
        return None
    array = np.array(part, copy=True, subok=False)
    return array if name_of(array.dtype) else None
