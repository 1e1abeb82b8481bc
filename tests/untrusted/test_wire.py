import json
import socket
import struct
import time

import ml_dtypes
import numpy as np
import pytest

from oracles.untrusted.wire import DTYPES, Ended, Malformed, TooLate, read_answer, send_answer


def answered(contents, most_bytes=2**20):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(contents)
        theirs.shutdown(socket.SHUT_WR)
        return read_answer(ours, time.monotonic() + 1, most_bytes)


def message(header, rest=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("I", len(text)) + text + rest


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_arrays_arrive_as_they_were_sent(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(DTYPES[dtype])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_answer(theirs, {"kind": "output", "is_tuple": True}, {"0": array, "1": 0.1})
        answer = read_answer(ours, time.monotonic() + 1, 2**20)
    assert answer.arrays["0"].dtype == array.dtype
    assert answer.arrays["0"].shape == shape
    assert answer.arrays["0"].tobytes() == array.tobytes()
    assert (type(answer.arrays["1"]), answer.arrays["1"], answer.is_tuple) == (float, 0.1, True)


MALFORMED = {
    "no JSON": message(b"\x00\x01"),
    "a pickle": message(b"\x80\x04\x95."),
    "deep JSON": message(b"[" * 100_000),
    "a list": message([]),
    "no arrays": message({"kind": "output"}),
    "an unknown kind": message({"kind": "passed", "arrays": []}),
    "objects": message({"kind": "output", "arrays": [["0", "object", [1]]]}, bytes(8)),
    "an unknown dtype": message({"kind": "output", "arrays": [["0", "V8", [1]]]}, bytes(8)),
    "a negative extent": message({"kind": "output", "arrays": [["0", "float64", [-1]]]}),
    "a true extent": message({"kind": "output", "arrays": [["0", "float64", [True]]]}, bytes(8)),
    "too many axes": message({"kind": "output", "arrays": [["0", "float64", [1] * 40]]}, bytes(8)),
    "too large": message({"kind": "output", "arrays": [["0", "float64", [2**30, 2**30]]]}),
    "a header too large": struct.pack("I", 2**31),
    "one name twice": message({"kind": "output", "arrays": [["0", "int8", [1]], ["0", "int8", [1]]]}, bytes(2)),
    "names that are no text": message({"kind": "output", "arrays": [], "written": [1]}),
    "a description that is no text": message({"kind": "output", "arrays": [], "other": {"0": 1}}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_answer_is_refused(name):
    with pytest.raises(Malformed):
        answered(MALFORMED[name])


def test_an_answer_that_is_cut_has_ended():
    with pytest.raises(Ended):
        answered(message({"kind": "output", "arrays": [["0", "float64", [2]]]}, bytes(8)))


def test_bytes_that_are_no_truth_values_become_some():
    answer = answered(message({"kind": "output", "arrays": [["0", "bool", [3]]]}, bytes([0, 1, 7])))
    assert answer.arrays["0"].tolist() == [False, True, True]
    assert answer.arrays["0"].tobytes() == bytes([0, 1, 1])


def test_an_answer_that_never_comes_is_too_late():
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TooLate):
        read_answer(ours, time.monotonic() + 0.05, 2**20)


def test_a_bfloat16_stays_one():
    assert DTYPES["bfloat16"] == np.dtype(ml_dtypes.bfloat16)
