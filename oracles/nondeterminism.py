"""Why equal calls of a subject give different answers: random numbers, memory that was never written, or state."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from oracles.constants import FREED_BLOCKS, LARGE_BLOCK, REMEMBERED_BYTES
from oracles.evaluations import copies_of, copies_of_delta, same_values
from oracles.lazy_modules import torch
from oracles.rule import Array, Cotangents, Output, Primals, Pullback, Rule, Runtime, as_tuple
from oracles.tolerance import values_of
from oracles.user_code import Raised, attempt

# Of bytes 0xFF, every floating number is NaN; of bytes 0x55, a finite one: 85 in float16, 1.5e13 in float32.
NAN_BYTE, FINITE_BYTE = 0xFF, 0x55
RANDOM, UNWRITTEN, STATE = "random", "unwritten", "state"


@dataclass(frozen=True)
class Cause:
    """Why equal calls give different answers.

    Attributes:
        kind: "random", "unwritten" or "state".
        reason: it in words.
        fix: the line to write instead, if it is known.
    """

    kind: str
    reason: str
    fix: str = ""


def cause_of_change(subject: Rule, primals: Primals, delta: Output, name: str) -> Cause:
    """Return why the subject gives another answer for the same arguments.

    Each cause is tested by calls: random numbers become equal when the global generators are reset before each call;
    memory that was never written shows what was written into freed memory before; anything else is state.

    Args:
        subject: the subject, on copies of its arguments.
        primals, delta: the point.
        name: the output or cotangent that changed.
    """
    before = _global_generators()
    try:
        first, after = _attempt(subject, primals, delta), _global_generators()
        used = [n for n, state in after.items() if n not in before or not _same_state(state, before[n])]
        further = _attempt(subject, primals, delta)
        _set_global_generators(before)
        again = _attempt(subject, primals, delta)
    finally:
        _set_global_generators(before)
    if used and _same_answers(first, again) and not _same_answers(first, further):
        return Cause(
            RANDOM,
            f"it draws random numbers from the global state of {', '.join(used)}, so every call is another function",
            "rng = np.random.default_rng(seed)      # with the seed, or the mask that was drawn, among the primals",
        )
    unwritten = _unwritten(subject, primals, delta, name)
    if unwritten:
        return unwritten
    if not any(_same_answers(a, b) for a, b in ((first, further), (first, again), (further, again))):
        return Cause(STATE, "every call gives another answer: random numbers of its own, the time, or a counter")
    return Cause(STATE, "state is kept between calls, or the answer depends on the time")


def _attempt(subject: Rule, primals: Primals, delta: Output) -> Cotangents | None:
    values = attempt(lambda: values_of(subject, copies_of(primals), copies_of_delta(delta)))
    return None if isinstance(values, Raised) else values


def in_filled_memory(subject: Rule, primals: Primals, delta: Output, byte: int = NAN_BYTE) -> Rule:
    """Return the subject called after freed memory was filled, so that what it never writes is NaN, and no lucky zero.

    Args:
        subject: the subject, on copies of its arguments.
        primals, delta: the point; blocks of these sizes are filled.
        byte: what they are filled with.
    """
    sizes = {np.asarray(a).nbytes for a in (*primals.values(), *as_tuple(delta))}
    fills_tensors = subject.runtime is Runtime.TORCH and byte == NAN_BYTE

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        with _filled_tensors(fills_tensors):
            fill_freed_memory(sizes, byte)
            y, pullback = subject(**primals)

        def pull_back(delta: Output) -> Cotangents:
            with _filled_tensors(fills_tensors):
                fill_freed_memory(sizes, byte)
                return pullback(delta)

        return y, pull_back

    return replace(subject, evaluate=evaluate, derived=None)


def values_in_filled_memory(subject: Rule, primals: Primals, delta: Output, byte: int = NAN_BYTE) -> Cotangents:
    """Return what the subject gives after freed memory was filled."""
    return values_of(in_filled_memory(subject, primals, delta, byte), primals, delta)


def unwritten_entries(subject: Rule, primals: Primals, delta: Output, name: str) -> Array | None:
    """Return where an array shows memory that was never written; ``None`` if nowhere.

    Such an entry is NaN twice after freed memory was filled with NaN, and no NaN after it was filled with a number.
    """
    masks = []
    for byte in (NAN_BYTE, FINITE_BYTE, NAN_BYTE):
        values = attempt(partial(values_in_filled_memory, subject, primals, delta, byte))
        if isinstance(values, Raised) or not isinstance(values.get(name), np.ndarray | np.generic):
            return None
        masks.append(np.isnan(values[name]) if values[name].dtype.kind not in "iub" else np.zeros(1, bool))
    if not masks[0].shape == masks[1].shape == masks[2].shape:
        return None
    unwritten = np.asarray(masks[0] & ~masks[1] & masks[2])
    return unwritten if np.any(unwritten) else None


def _unwritten(subject: Rule, primals: Primals, delta: Output, name: str) -> Cause | None:
    unwritten = unwritten_entries(subject, primals, delta, name)
    if unwritten is None:
        return None
    variable = "y" if name.split("[")[0] == "output" else f"d{name}"
    count, module = int(np.count_nonzero(unwritten)), "torch" if subject.runtime is Runtime.TORCH else "np"
    return Cause(
        UNWRITTEN,
        f"at least {count} of {unwritten.size} entries come from memory that was never written, as of {module}.empty",
        f"{variable} = {module}.zeros_like({name})      # or write every entry"
        if variable != "y"
        else f"{module}.zeros(...)      # or write every entry",
    )


def _same_answers(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> bool:
    if first is None or second is None:
        return False
    return first.keys() == second.keys() and all(same_values(first[n], second[n]) for n in first)


def _global_generators() -> dict[str, Any]:
    """Return the states of the global generators, by the module that has them; torch's only if torch is in use."""
    states: dict[str, Any] = {"random": random.getstate(), "numpy.random": np.random.get_state()}  # noqa: NPY002 (the state of others is read)
    if "torch" in sys.modules:
        states["torch"] = torch.get_rng_state()
    return states


def _set_global_generators(states: Mapping[str, Any]) -> None:
    random.setstate(states["random"])
    np.random.set_state(states["numpy.random"])  # noqa: NPY002
    if "torch" in states:
        torch.set_rng_state(states["torch"])


def _same_state(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    return np.array_equal(a, b)


def fill_freed_memory(sizes: set[int], byte: int) -> None:
    """Fill blocks of these sizes and free them: the next array of such a size that nobody writes shows the byte."""
    for size in sizes:
        if not 0 < size <= REMEMBERED_BYTES:
            continue
        small = size <= LARGE_BLOCK
        for _ in range(1 if small else 2):
            blocks = [np.empty(size, np.uint8) for _ in range(FREED_BLOCKS if small else 2)]
            for block in blocks:
                block.fill(byte)
            del blocks, block


@contextmanager
def _filled_tensors(fills: bool) -> Iterator[None]:
    """Let torch fill what `torch.empty` returns with NaN, which it does where it is deterministic."""
    if not fills:
        yield
        return
    mode, filled = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of every operation that it cannot repeat to the bit
        torch.set_deterministic_debug_mode("warn")
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            torch.utils.deterministic.fill_uninitialized_memory = filled
