"""Evaluations of a subject: by name, on copies of its arguments, and remembered, to notice two answers to one call.

This module imports no Hypothesis: `oracles.check` needs none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from numbers import Number
from typing import Any, TypeAlias

import numpy as np

from oracles.backends.arrays import copied
from oracles.constants import REMEMBERED_BYTES
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Evaluate,
    Output,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
    is_real,
)
from oracles.tolerance import named_outputs
from oracles.user_code import Raised, attempt

Key: TypeAlias = bytes


def same_values(actual: object, expected: object) -> bool:
    """Return whether two results have the same shape, dtype and bits.

    NaN equals NaN, whatever its bits, and the padding of a long double does not count.
    """
    a, b = np.asarray(actual), np.asarray(expected)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.tobytes() == b.tobytes():
        return True
    return a.dtype.kind not in "iub" and not bool(np.any(different(a, b)))


def different(a: Array, b: Array) -> Array:
    """Return where two arrays of one shape and dtype differ in value or in the sign of a zero; NaN equals NaN.

    Of objects that are no numbers only the types are compared.
    """
    if a.dtype.kind == "c":
        return different(a.real, b.real) | different(a.imag, b.imag)
    if a.dtype.kind == "O":
        return np.asarray(np.frompyfunc(_objects_differ, 2, 1)(a, b), bool)
    if not is_differentiable(a):  # integers, texts, times
        return np.asarray((a != b) & ((a == a) | (b == b)))
    with np.errstate(invalid="ignore"):
        equal = np.equal(a, b) & (np.signbit(a) == np.signbit(b))
    return np.asarray(~(equal | (np.isnan(a) & np.isnan(b))))


def _objects_differ(a: Any, b: Any) -> bool:
    if not (isinstance(a, Number) and isinstance(b, Number)):
        return type(a) is not type(b)
    return bool(a != b and (a == a or b == b))  # NaN alone is not itself


def copies_of(primals: Primals) -> dict[str, Array]:
    """Copy every array once, with its strides: one array as two primals stays one array."""
    copies = {id(a): copied(a) for a in primals.values()}
    return {n: copies[id(a)] for n, a in primals.items()}


def copies_of_delta(delta: Delta) -> Delta:
    """Copy a cotangent, or each of a tuple of them, with its strides."""
    return tuple(map(copied, delta)) if isinstance(delta, tuple) else copied(delta)


def on_copies(subject: Rule) -> Rule:
    """Return the subject evaluated on copies of its arguments, so that it cannot change the caller's arrays.

    Without copies, a write that changes nothing the second time (ReLU in place) would never be noticed.
    """

    def guard(evaluate: Evaluate) -> Evaluate:
        def evaluate_on_copies(**primals: Array) -> tuple[Output, Pullback]:
            y, pullback = evaluate(**copies_of(primals))
            return y, lambda delta: pullback(copies_of_delta(delta))

        return evaluate_on_copies

    call_patterns = {name: guard(evaluate) for name, evaluate in subject.call_patterns.items()}
    evaluate = guard(subject.evaluate)
    derived = subject.derivatives.wrapped(evaluate, on_copies, in_place=True)
    return replace(subject, evaluate=evaluate, call_patterns=call_patterns, derived=derived)


@dataclass(frozen=True)
class Contradiction:
    """Two answers to the same call.

    Attributes:
        name: the output, or the primal whose cotangent was returned; "" if one of the calls raised.
        first, second: the two answers: an array, or what the call raised.
        calls: the numbers of the two forwards.
        primals, delta: the point; ``delta`` is ``None`` if the forward alone was called.
    """

    name: str
    first: Any
    second: Any
    calls: tuple[int, int]
    primals: Primals
    delta: Delta | None

    @property
    def size(self) -> float:
        """The largest difference of an entry; infinite if the shapes differ, or an answer is NaN or not real."""
        is_number = is_real(self.first) and is_real(self.second)
        if not self.name or not is_number or np.shape(self.first) != np.shape(self.second):
            return float("inf")
        first, second = np.asarray(self.first, np.float64), np.asarray(self.second, np.float64)
        with np.errstate(all="ignore"):
            difference = np.where(different(first, second), np.abs(second - first), 0.0)
        return float(np.max(np.nan_to_num(difference, nan=np.inf, posinf=np.inf), initial=0.0))


@dataclass
class _Remembered:
    """The answers to one call, by name, or what it raised; with the arguments, so that it can be repeated."""

    call: int
    answers: dict[str, Array] | Exception
    primals: Primals
    delta: Delta | None
    size: int


@dataclass
class Memory:
    """What a subject answered to each call of one check, or at one point of a search.

    Attributes:
        contradictions: the first two answers that differ, by name.
        calls: the number of forwards.
        is_closed: whether further calls are not remembered.
    """

    contradictions: dict[str, Contradiction] = field(default_factory=dict)
    calls: int = 0
    is_closed: bool = False
    _known: OrderedDict[Key, _Remembered] = field(default_factory=OrderedDict)
    _size: int = 0

    def add(
        self, key: Key, call: int, answer: Mapping[str, Any] | Exception, primals: Primals, delta: Delta | None
    ) -> None:
        """Compare an answer with the earlier one to the same call, or remember it if there is none.

        The arguments are kept as they are, so they must be copies.
        """
        known = self._known.get(key)
        if known is not None:
            self._compare(known, call, answer)
            return
        answers = answer if isinstance(answer, Exception) else _arrays(answer)
        size = sum(a.nbytes for a in (*primals.values(), *_parts(delta)))
        size += 0 if isinstance(answers, Exception) else sum(a.nbytes for a in answers.values())
        if size > REMEMBERED_BYTES:
            return
        self._known[key] = _Remembered(call, answers, primals, delta, size)
        self._size += size
        while self._size > REMEMBERED_BYTES:
            self._size -= self._known.popitem(last=False)[1].size

    def forget(self) -> None:
        """Forget all calls, before those at another point."""
        self.contradictions, self.calls, self._size = {}, 0, 0
        self._known.clear()

    def close(self) -> None:
        """Forget all calls, and remember no further ones: what follows is not compared."""
        self.forget()
        self.is_closed = True

    def repeat(self, subject: Rule) -> None:
        """Call the subject again at every remembered point, so that an answer that changes contradicts the first."""
        with np.errstate(all="ignore"):  # what overflows did so before
            for known in list(self._known.values()):
                attempt(partial(_call, subject, known.primals, known.delta))

    def _compare(self, known: _Remembered, call: int, answer: Mapping[str, Any] | Exception) -> None:
        first, calls = known.answers, (known.call, call)
        if isinstance(answer, Exception) or isinstance(first, Exception):
            # Whether a warning is an error depends on who calls.
            if any(isinstance(a, Warning) for a in (answer, first)):
                return
            if isinstance(answer, Exception) != isinstance(first, Exception):
                self._contradict(Contradiction("", first, answer, calls, known.primals, known.delta))
            return
        for n, array in _arrays(answer, copy=False).items():
            if n in first and not same_values(array, first[n]):
                self._contradict(Contradiction(n, first[n], np.array(array), calls, known.primals, known.delta))

    def _contradict(self, found: Contradiction) -> None:
        # Where rounding may differ from call to call, a larger difference must not hide behind an earlier, small one.
        known = self.contradictions.get(found.name)
        if known is None or found.size > known.size:
            self.contradictions[found.name] = found


def remembered(subject: Rule, memory: Memory) -> Rule:
    """Return the subject with every evaluation on plain arrays added to a memory."""

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        key = None if memory.is_closed else _key(primals)
        if key is None:  # balls, perturbed arrays
            return subject.evaluate(**primals)
        memory.calls += 1
        call = memory.calls
        arguments = copies_of(primals)  # the subject may write into its own
        outcome = attempt(lambda: subject.evaluate(**primals))
        if isinstance(outcome, Raised):
            memory.add(key, call, outcome.error, arguments, None)
            raise outcome.error
        y, pullback = outcome
        memory.add(key, call, named_outputs(as_tuple(y), {}), arguments, None)
        answered: list[bytes] = []

        def remembered_pullback(delta: Delta) -> Cotangents:
            of_delta = _key({str(i): part for i, part in enumerate(_parts(delta))})
            if of_delta is None:
                return pullback(delta)
            given = copies_of_delta(delta)
            result = attempt(lambda: pullback(delta))
            if isinstance(result, Raised):
                if not answered:  # a forward may keep what it needs for one pullback, which frees it
                    memory.add(key + of_delta, call, result.error, arguments, given)
                raise result.error
            answered.append(of_delta)
            if isinstance(result, Mapping):  # else the rule around this one says so
                memory.add(key + of_delta, call, dict(result), arguments, given)
            return result

        return y, remembered_pullback

    return replace(subject, evaluate=evaluate, derived=subject.derivatives.wrapped(evaluate, _unchanged, in_place=True))


def _unchanged(rule: Rule) -> Rule:
    return rule


def _call(subject: Rule, primals: Primals, delta: Delta | None) -> None:
    _, pullback = subject(**copies_of(primals))
    if delta is not None:
        pullback(copies_of_delta(delta))


def _parts(delta: Delta | None) -> tuple[Any, ...]:
    return () if delta is None else as_tuple(delta)


def _arrays(answer: Mapping[str, Any], *, copy: bool = True) -> dict[str, Array]:
    """Return the arrays of an answer; the judge reports anything else as it is."""
    arrays = {n: a for n, a in answer.items() if isinstance(a, np.ndarray | np.generic) and a.dtype.kind != "O"}
    return {n: np.array(a) if copy else np.asarray(a) for n, a in arrays.items()}


def _key(arrays: Mapping[str, Any]) -> Key | None:
    """Return what tells one call from another: names, values, strides, shared arrays; ``None`` if these are no arrays.

    The strides count, since an answer that depends on them is another defect than one that changes.
    """
    digest, addresses = sha256(), dict[int, int]()
    for n, a in arrays.items():
        if type(a) is not np.ndarray or a.dtype.kind == "O":
            return None
        # An axis of one entry may have any stride, and an array without entries any address.
        strides = [s for s, extent in zip(a.strides, a.shape, strict=True) if extent > 1]
        address = addresses.setdefault(a.__array_interface__["data"][0], len(addresses)) if a.size else -1
        digest.update(repr((n, a.dtype.name, a.shape, strides, address)).encode())
        # A view of its bytes where it is contiguous: a copy takes as long as the digest.
        digest.update(a.ravel().view(np.uint8).data if a.flags.c_contiguous else a.tobytes())
    return digest.digest()
