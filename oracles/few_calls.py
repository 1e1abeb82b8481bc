"""The fewest calls of a subject that show whether its answers are consistent.

A call of a large kernel may take a second. So `oracles.check` calls a subject six times, each with one pullback, and
asks one of these twice:

1. at the point; after all other calls, the pullback is asked again, with its cotangent transposed;
2. there again, after freed memory was filled; the pullback is asked after the calls 3 to 5;
3. at another point, with contiguous arrays that begin one entry into their memory;
4. there, with arrays that have gaps;
5. there, with transposed arrays, one of them as several primals, and an expanded cotangent;
6. at the point once more.

Only if an answer differs do the checks of `oracles.self_consistency` and `oracles.layouts` run. These vary one thing at
a time, and name the defect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from oracles.backends.arrays import shifted
from oracles.decision.reduced_point import part_of
from oracles.decision.type_errors import is_real_array
from oracles.evaluations import copies_of, copies_of_delta, on_copies, same_values
from oracles.layouts import contiguous, expanded, is_contiguous, padded, primals_of_one_type, transposed
from oracles.nondeterminism import in_filled_memory
from oracles.rule import Array, Cotangents, Output, Primals, Pullback, Rule, as_tuple, map_delta
from oracles.self_consistency import (
    Tolerance,
    check_call_pattern,
    compare_values,
    move_point,
    note_asked_once,
    notes_of_aliasing,
    self_tolerance_at,
)
from oracles.tolerance import named_outputs, values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import Setting


class FirstCall:
    """The first call of a subject at a point, with the arrays that it was given, and those that it returned.

    Attributes:
        y: the output.
    """

    def __init__(self, subject: Rule, primals: Primals) -> None:
        self._given = copies_of(primals)
        self.y, self._pullback = subject(**self._given)
        self._given_before = dict(primals)
        self._returned = _arrays(named_outputs(as_tuple(self.y), {}))
        self._returned_before = _copies(self._returned)

    def pullback(self, delta: Output) -> Cotangents:
        """Return the cotangents; the arrays are kept, to see whether they change."""
        given = copies_of_delta(delta)
        cotangents = self._pullback(given)
        for i, (passed, before) in enumerate(zip(as_tuple(given), as_tuple(delta), strict=True)):
            self._given[f"delta[{i}]"], self._given_before[f"delta[{i}]"] = passed, before
        returned = _arrays(dict(cotangents))
        self._returned |= returned
        self._returned_before |= _copies(returned)
        return cotangents

    def pullback_again(self, delta: Output) -> Cotangents:
        """Return the cotangents that the same pullback gives a further time."""
        return self._pullback(delta)

    @property
    def values(self) -> dict[str, Array]:
        """What the call and its first pullback returned, by name."""
        return self._returned_before

    @property
    def is_unchanged(self) -> bool:
        """Whether nothing has written into an array that was given or returned."""
        pairs = [(a, self._given_before[n]) for n, a in self._given.items()]
        pairs += [(a, self._returned_before[n]) for n, a in self._returned.items()]
        return all(same_values(a, before) for a, before in pairs)

    def notes(self) -> list[str]:
        """Return a note for each array that shares memory with another: many libraries return views."""
        arrays = {f"given {n}": a for n, a in self._given.items()}
        arrays |= {f"returned {n}": a for n, a in self._returned.items()}
        return notes_of_aliasing(arrays)


def second_call(setting: Setting, call: FirstCall) -> tuple[Output, Pullback] | None:
    """Return a second call at the point, in filled memory; ``None`` if its output differs from that of the first."""
    subject = on_copies(setting.subject)
    called = attempt(lambda: in_filled_memory(subject, setting.primals, setting.delta)(**setting.primals))
    if isinstance(called, Raised):
        return None
    outputs = named_outputs(as_tuple(called[0]), {})
    return called if _repeats(outputs, {n: call.values[n] for n in outputs if n in call.values}, setting) else None


def few_calls_agree(setting: Setting, call: FirstCall) -> bool:
    """Return whether the answer is the same by every call pattern, and for every layout of the arguments in memory.

    Args:
        setting: the subject, the point and the delta of the first pullback.
        call: the first call.
    """
    if not all(map(is_contiguous, (*setting.primals.values(), *as_tuple(setting.delta)))):
        return False  # its own layout is one more thing to vary
    tolerance = _tolerance(setting)
    for pattern, evaluate in on_copies(setting.subject).call_patterns.items():
        found = check_call_pattern(pattern, evaluate, setting.primals, setting.delta, call.values, tolerance)
        if any(f.refuses for f in found):
            return False
    return _layouts_agree(part_of(setting))


def answers_again(setting: Setting, call: FirstCall, second: tuple[Output, Pullback]) -> bool:
    """Return whether the second call, after other calls, and one more call give the answer of the first one."""
    subject = on_copies(setting.subject)

    def answers() -> list[dict[str, Any]]:
        third = subject(**setting.primals)
        return [named_outputs(as_tuple(y), dict(pull(setting.delta))) for y, pull in (second, third)]

    found = attempt(answers)
    return not isinstance(found, Raised) and all(_repeats(_arrays(a), call.values, setting) for a in found)


def pulls_back_again(setting: Setting, call: FirstCall) -> bool:
    """Return whether the pullback of the first call gives the same again, of a cotangent that is transposed in memory.

    So a backward is found that writes into what its forward kept. One that frees it raises: that is no wrong answer, so
    the pullback of a further call is asked instead.
    """

    def cotangents(pullback: Callable[[Output], Cotangents]) -> dict[str, Any]:
        return dict(pullback(map_delta(transposed, setting.delta)))

    found = attempt(lambda: cotangents(call.pullback_again))
    if isinstance(found, Raised):
        raised, subject = found.error, on_copies(setting.subject)
        found = attempt(lambda: cotangents(subject(**setting.primals)[1]))
        if isinstance(found, Raised):
            return False
        note_asked_once(raised)
    expected = {n: a for n, a in call.values.items() if n in found}
    return len(expected) == len(_arrays(found)) and _are_equal(_arrays(found), expected, _tolerance(setting))


@np.errstate(all="ignore")  # the judge's own point: equal primals may lie outside the domain
def _layouts_agree(setting: Setting) -> bool:
    """Return whether calls at another point agree whose arrays lie in memory in other ways."""
    subject, constant = on_copies(setting.subject), map_delta(expanded, setting.delta)
    other, equal = move_point(setting.primals), primals_of_one_type(setting.primals)
    if equal:  # they can be one array
        other |= dict.fromkeys(equal, other[equal[0]])
    plain, strided, turned = ({n: lay(a) for n, a in other.items()} for lay in (shifted, padded, transposed))
    if equal:
        turned |= dict.fromkeys(equal, turned[equal[0]])
    dense = map_delta(contiguous, constant)
    points = (plain, map_delta(shifted, dense)), (strided, map_delta(padded, dense)), (turned, constant)
    answers = [attempt(partial(values_of, subject, *point)) for point in points]
    values = [a for a in answers if not isinstance(a, Raised)]
    if len(values) < len(answers):
        return False
    tolerance = self_tolerance_at(subject, setting.oracles, other, dense, setting.numerics)
    return all(a.keys() == values[0].keys() and _are_equal(a, values[0], tolerance) for a in values[1:])


def _tolerance(setting: Setting) -> Tolerance:
    subject = on_copies(setting.subject)
    return self_tolerance_at(subject, setting.oracles, setting.primals, setting.delta, setting.numerics)


def _repeats(actual: Mapping[str, Any], expected: Mapping[str, Array], setting: Setting) -> bool:
    """Return whether an answer repeats another one, to the bit where the subject's library repeats its bits."""
    if actual.keys() != expected.keys():
        return False
    if setting.subject.is_bitwise_reproducible:
        return all(same_values(actual[n], a) for n, a in expected.items())
    return _are_equal(actual, expected, _tolerance(setting))


def _are_equal(actual: Mapping[str, Any], expected: Mapping[str, Any], tolerance: Tolerance) -> bool:
    """Return whether two answers differ by no more than rounding; not if one has something else than real numbers."""
    if not all(is_real_array(a) for values in (actual, expected) for a in values.values()):
        return False
    return not any(compare_values(n, actual[n], a, tolerance, "").refuses for n, a in expected.items())


def _arrays(values: Mapping[str, Any]) -> dict[str, Array]:
    return {n: a for n, a in values.items() if isinstance(a, np.ndarray)}


def _copies(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {n: np.array(a) for n, a in arrays.items()}
