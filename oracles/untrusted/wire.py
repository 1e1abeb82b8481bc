"""Messages between the judge and the process of a subject.

The judge's questions are pickled. The answers are not: they come from a process in which a stranger's code may have
done anything, so they are read as a header of JSON and as bytes, and everything in them is checked. Whoever forges an
answer has answered.

    4 bytes: the length of the header · the header · the entries of each array, in the order of the header
"""

from __future__ import annotations

import json
import math
import pickle
import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from oracles.constants import MOST_HEADER_BYTES, MOST_TEXT
from oracles.rule import EXTENSION_FLOATS, Array

# The types of numbers that an answer may have. Objects, text and records cannot be sent.
DTYPES: Mapping[str, np.dtype[Any]] = {
    **{name: np.dtype(name) for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
        "float64", "longdouble", "complex64", "complex128",
    )},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in sorted(EXTENSION_FLOATS)},
}  # fmt: skip
MOST_AXES = 32
MOST_ENTRIES = 2**40
# What stands for the dtype of a number of Python's, which has none.
PYTHON_FLOAT = "float"
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Malformed(ValueError):
    """An answer is no message: whoever wrote it is not the code that serves the subject."""


class Ended(EOFError):
    """The other process closed the connection."""


class TooLate(TimeoutError):
    """There was no answer in time."""


@dataclass(frozen=True)
class Answer:
    """What a process answered.

    Attributes:
        kind: "ready", "output", "cotangents", or "raised".
        arrays: by name: of outputs "0", "1", …; of cotangents the primals' names. A float of Python's stays one.
        is_tuple: whether the output is a tuple.
        names: what the outputs are called, if they are in a structure of the subject's.
        error: the type and the message of what the subject raised.
        other: what the subject returned that is no array, in words, by name.
        written: the arguments that the subject wrote into.
        forbidden: what it did that was forbidden, as far as its process noticed.
    """

    kind: str
    arrays: Mapping[str, Array | float]
    is_tuple: bool = False
    names: tuple[str, ...] = ()
    error: str = ""
    other: Mapping[str, str] | None = None
    written: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


def ask(connection: socket.socket, question: object, until: float) -> None:
    """Send a question.

    Raises:
        TooLate: if the other process does not read it until then, a time of `time.monotonic`.
        Ended: if it has closed the connection.
    """
    message = pickle.dumps(question)
    connection.settimeout(max(0.001, until - time.monotonic()))
    try:
        connection.sendall(struct.pack("Q", len(message)) + message)
    except TimeoutError:
        raise TooLate from None
    except OSError as error:
        raise Ended from error


def read_question(connection: socket.socket) -> Any:
    """Return the next question of the judge.

    Raises:
        Ended: if there is none.
    """
    connection.settimeout(None)
    size = struct.unpack("Q", _exactly(connection, 8, None))[0]
    return pickle.loads(_exactly(connection, size, None))


def send_answer(connection: socket.socket, header: Mapping[str, Any], arrays: Mapping[str, Array | float]) -> None:
    """Send an answer: its header, and arrays by name."""
    contents = {n: np.ascontiguousarray(a) for n, a in arrays.items()}
    described = [
        [n, PYTHON_FLOAT if type(arrays[n]) is float else name_of(a.dtype), list(np.shape(arrays[n]))]
        for n, a in contents.items()
    ]
    text = json.dumps({**header, "arrays": described}).encode()
    connection.sendall(struct.pack("I", len(text)) + text + b"".join(a.tobytes() for a in contents.values()))


def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype of `DTYPES`, or "" for any other."""
    return _NAMES.get(dtype, "")


def read_answer(connection: socket.socket, until: float, most_bytes: int) -> Answer:
    """Return the next answer of a subject's process.

    Args:
        connection: to the process.
        until: the time of `time.monotonic` at which it is too late.
        most_bytes: how much the arrays may take.

    Raises:
        TooLate: if it is not complete by then.
        Ended: if the process closes the connection instead.
        Malformed: if it is no answer, or too large.
    """
    size = struct.unpack("I", _exactly(connection, 4, until))[0]
    if size > MOST_HEADER_BYTES:
        raise Malformed(f"a header of {size} bytes")
    text = _exactly(connection, size, until)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("a header that is no JSON") from None
    described = _described(header)
    wanted = sum(DTYPES.get(dtype, DTYPES["float64"]).itemsize * math.prod(shape) for _, dtype, shape in described)
    if wanted > most_bytes:
        raise Malformed(f"arrays of {wanted} bytes; the limit is {most_bytes}")
    return _answer(header, {n: _read_array(connection, dtype, shape, until) for n, dtype, shape in described})


def _read_array(connection: socket.socket, name: str, shape: tuple[int, ...], until: float) -> Array | float:
    dtype = DTYPES.get(name, DTYPES["float64"])
    contents = _exactly(connection, dtype.itemsize * math.prod(shape), until)
    if dtype.kind == "b":  # any other byte than 0 and 1 would be no truth value
        return np.asarray(np.frombuffer(contents, np.uint8).reshape(shape) != 0)
    array: Array = np.frombuffer(contents, dtype).reshape(shape)
    return float(array) if name == PYTHON_FLOAT else array


def _described(header: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return name, dtype and shape of each array of a header."""
    if not isinstance(header, dict) or not isinstance(header.get("arrays"), list):
        raise Malformed("a header without arrays")
    described = []
    for each in header["arrays"]:
        if not (isinstance(each, list) and len(each) == 3):
            raise Malformed("an array without name, dtype and shape")
        name, dtype, shape = each
        is_shape = isinstance(shape, list) and len(shape) <= MOST_AXES and all(map(_is_extent, shape))
        # NumPy refuses an empty array whose other extents are too large.
        is_shape = is_shape and math.prod(filter(None, shape)) < MOST_ENTRIES
        is_known = isinstance(dtype, str) and (dtype in DTYPES or (dtype == PYTHON_FLOAT and shape == []))
        if not (isinstance(name, str) and name.isprintable() and is_shape and is_known):
            raise Malformed("an array of unknown dtype or shape")
        described.append((name, dtype, tuple(shape)))
    if len({name for name, _, _ in described}) < len(described):
        raise Malformed("two arrays of one name")
    return described


def _is_extent(n: object) -> bool:
    return type(n) is int and 0 <= n < MOST_ENTRIES


def _answer(header: Mapping[str, Any], arrays: Mapping[str, Array | float]) -> Answer:
    kind, error, other = header.get("kind"), header.get("error", ""), header.get("other", {})
    if kind not in ("ready", "output", "cotangents", "raised") or not isinstance(error, str):
        raise Malformed("an answer of unknown kind")
    if not isinstance(other, dict) or not all(isinstance(text, str) for text in other.values()):
        raise Malformed("a description that is no text")
    return Answer(
        kind,
        arrays,
        header.get("is_tuple") is True,
        _texts(header.get("names", [])),
        _printable(error),
        {_printable(str(n)): _printable(text) for n, text in other.items()},
        _texts(header.get("written", [])),
        _texts(header.get("forbidden", [])),
    )


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Malformed("names that are no text")
    return tuple(map(_printable, values))


def _printable(text: str) -> str:
    """Return the beginning of a text that somebody will print: without control characters and halves of surrogates."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text[:MOST_TEXT])


def _exactly(connection: socket.socket, size: int, until: float | None) -> bytearray:
    """Return the next so many bytes of a connection."""
    contents = bytearray()
    while len(contents) < size:
        if until is not None:
            left = until - time.monotonic()
            if left <= 0 or not select.select([connection], [], [], left)[0]:
                raise TooLate
        try:
            part = connection.recv(min(size - len(contents), 2**20))
        except OSError as error:
            raise Ended from error
        if not part:
            raise Ended
        contents += part
    return contents
