"""Check that an answer does not depend on the memory of the arguments: strides, repeated axes, shared arrays.

`y.sum().backward()` passes a cotangent of stride 0, a transpose or a slice gives strided arrays, and one array may be
two primals. A subject may read such arrays as contiguous ones; its answer is then wrong for them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oracles.backends.arrays import copied, is_shifted, shifted
from oracles.decision.type_errors import refuse
from oracles.evaluations import copies_of_delta, on_copies
from oracles.rule import Array, Cotangents, Delta, Primals, Rule, Runtime, as_tuple, is_differentiable, map_delta
from oracles.self_consistency import compare_values, self_tolerance_at
from oracles.tolerance import named_outputs, values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import Finding, Setting, Verdict


def padded(array: Array) -> Array:
    """Return the same values with a gap after every line of every axis, so that no two axes are one in memory.

    A vector has a gap after every entry.
    """
    if array.ndim == 0 or not array.size:
        return array
    gaps = [n + 1 for n in array.shape[1:]] if array.ndim > 1 else [2]
    wide = np.zeros((array.shape[0], *gaps), array.dtype)
    values = wide[tuple(slice(n) for n in array.shape)] if array.ndim > 1 else wide[:, 0]
    values[...] = array
    return copied(values)  # which fills the gaps


def transposed(array: Array) -> Array:
    """Return the same values with the axes in the opposite order in memory; a vector with a gap after every entry."""
    return padded(array) if array.ndim < 2 else copied(np.asfortranarray(array))


def expanded(array: Array) -> Array:
    """Return the array's first entry everywhere, with strides 0, as the sum of an output passes its cotangent back."""
    return array if not array.size else copied(np.broadcast_to(array.ravel()[0], array.shape))


def repeated_rows(array: Array) -> Array:
    """Return the array's first row everywhere, with stride 0 along the rows."""
    return array if not array.size or not array.ndim else copied(np.broadcast_to(array[:1], array.shape))


def contiguous(array: Array) -> Array:
    """Return a contiguous copy."""
    return np.array(array, order="C", copy=True)


def is_contiguous(array: Array) -> bool:
    """Return whether an array lies in memory as its entries stand."""
    return bool(np.asarray(array).flags.c_contiguous)


@dataclass(frozen=True)
class _Way:
    """One way to call: the arguments, the answer that it must give, and the tolerance between the two."""

    primals: Primals
    delta: Delta
    expected: Cotangents


def check_layouts(setting: Setting) -> tuple[list[Finding], list[str]]:
    """Check that strided and expanded arguments give what contiguous ones give.

    Four calls agree for most subjects: with padded primals and a padded cotangent, with transposed primals and an
    expanded cotangent, with both transposed, and with contiguous arrays that begin one entry into their memory. Only if
    one does not, each argument is given alone, so that the reason names it.

    Args:
        setting: the point and the subject, which is evaluated on copies.

    Returns:
        The findings, and notes on layouts of primals that the subject refuses by an exception.
    """
    if setting.subject.runtime is Runtime.JAX:  # its arrays have no strides
        return [], []
    subject = on_copies(setting.subject)
    primals = {n: contiguous(a) for n, a in setting.primals.items()}
    delta, constant = map_delta(contiguous, setting.delta), map_delta(expanded, setting.delta)
    y, pullback = subject(**primals)
    outputs = named_outputs(as_tuple(y), {})
    plain = _Way(primals, delta, {**outputs, **dict(pullback(delta))})
    of_constant = _Way(primals, constant, {**outputs, **dict(pullback(map_delta(contiguous, constant)))})
    ways = [
        (plain, {n: padded(a) for n, a in primals.items()}, map_delta(padded, delta)),
        (of_constant, {n: transposed(a) for n, a in primals.items()}, constant),
        (plain, {n: transposed(a) for n, a in primals.items()}, map_delta(transposed, delta)),
        (plain, {n: shifted(a) for n, a in primals.items()}, map_delta(shifted, delta)),
    ]
    if not all(map(is_contiguous, (*setting.primals.values(), *as_tuple(setting.delta)))):
        ways.append((plain, dict(setting.primals), setting.delta))
    findings: list[Finding] = []
    notes: list[str] = []
    for way, laid_primals, laid_delta in ways:
        if _refused(_compare(setting, way, laid_primals, laid_delta, "")):
            found, noted = _attributed(setting, way, laid_primals, laid_delta)
            findings += found
            notes += noted
    return findings, list(dict.fromkeys(notes))


def _attributed(setting: Setting, way: _Way, primals: Primals, delta: Delta) -> tuple[list[Finding], list[str]]:
    """Return what is refused for each argument alone in its layout, as `check_layouts` does."""
    findings: list[Finding] = []
    notes: list[str] = []
    for what, fix, of_delta, given, given_delta in _one_by_one(setting, way, primals, delta):
        refused = _refused(_compare(setting, way, given, given_delta, what, fix))
        if refused:  # asked twice, since the layout is blamed only for what it changes every time
            refused = _refused(_compare(setting, way, given, given_delta, what, fix))
        raised = bool(refused) and refused[0].quantity == ARGUMENTS
        # torch passes cotangents of any layout. That other code asks for contiguous arrays, and says so, is no bug.
        if raised and not (of_delta and setting.subject.runtime is Runtime.TORCH):
            notes.append(refused[0].evidence.reason)
        else:
            findings += refused
    # Contiguous arrays again: if that changes, the answer depends on something else than the layout.
    plain = map_delta(contiguous, way.delta)
    if findings and _refused(_compare(setting, way, way.primals, plain, "")):
        return [], notes
    if not findings and not notes:
        findings = _refused(_compare(setting, way, primals, delta, "strided primals and a strided cotangent together"))
    return findings, notes


# The quantity of a finding on a call that raised for one layout.
ARGUMENTS = "cotangents"


@np.errstate(all="ignore")  # the judge's own point: equal primals may lie outside the domain
def check_shared(setting: Setting) -> list[Finding]:
    """Check that one array passed as several primals, itself or as views, gives what copies of it give.

    Where floating primals have equal shapes and dtypes, all of them take the values of the first. A subject that writes
    into one of them, or tells them apart by their identity, gives another answer then.
    """
    subject, primals, delta = setting.subject, setting.primals, setting.delta
    names = primals_of_one_type(primals)
    if not names:
        return []
    value = contiguous(primals[names[0]])
    rest = {n: a for n, a in primals.items() if n not in names}

    def with_each(make: Callable[[], Array]) -> dict[str, Array]:
        return {n: make() if n in names else copied(rest[n]) for n in primals}

    copies = with_each(value.copy)
    expected = attempt(lambda: values_of(subject, copies, copies_of_delta(delta)))
    if isinstance(expected, Raised) or not _fits(expected, delta):
        return []  # equal primals lie outside the domain
    way = _Way(with_each(value.copy), delta, expected)
    shared, viewed = value.copy(), value.copy()
    listed = " and ".join(names)
    fix = f"{names[0]} = {names[0]}.copy()      # and tell the primals apart by their names, not by id() or `is`"
    for given, what in (
        (with_each(lambda: shared), f"one array passed as {listed}"),
        (with_each(viewed.view), f"views of one array passed as {listed}"),
    ):
        refused = _refused(_compare(setting, way, given, copies_of_delta(delta), what, fix, against="copies", raw=True))
        if refused:
            return refused
    return []


def primals_of_one_type(primals: Primals) -> list[str]:
    """Return the most floating primals of one shape and dtype, by name; none if no two have the same."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for n, a in primals.items():
        if is_differentiable(a) and a.size:
            groups.setdefault((a.shape, a.dtype), []).append(n)
    names = max(groups.values(), key=len, default=[])
    return names if len(names) > 1 else []


def _fits(values: Mapping[str, Any], delta: Delta) -> bool:
    """Return whether a cotangent has the shapes of the outputs among some values."""
    outputs = [np.shape(a) for n, a in values.items() if n.split("[")[0] == "output"]
    return outputs == [np.shape(d) for d in as_tuple(delta)]


def _one_by_one(
    setting: Setting, way: _Way, primals: Primals, delta: Delta
) -> Iterator[tuple[str, str, bool, Primals, Delta]]:
    """Yield each argument alone in its layout: in words, with a fix, whether it is a cotangent, and the arguments."""
    is_torch = setting.subject.runtime is Runtime.TORCH
    strides = [np.asarray(d).strides for d in as_tuple(delta) if not is_contiguous(d)]
    if any(map(is_shifted, as_tuple(delta))):
        yield f"a cotangent {_SHIFTED}", _start_of("delta", is_torch), True, way.primals, delta
    if strides:
        what = f"a cotangent with strides {strides[0]}"
        fix = "dy = dy.contiguous()" if is_torch else "delta = np.ascontiguousarray(delta)"
        yield what, fix, True, way.primals, delta
    plain_delta = map_delta(contiguous, way.delta)
    for n, a in primals.items():
        if is_shifted(a):
            yield f"{n} {_SHIFTED}", _start_of(n, is_torch), False, {**way.primals, n: a}, plain_delta
        if not is_contiguous(a):
            fix = f"{n} = {n}.contiguous()" if is_torch else f"{n} = np.ascontiguousarray({n})"
            yield f"{n} with strides {a.strides}", fix, False, {**way.primals, n: a}, plain_delta


_SHIFTED = "that begins one entry into its memory"


def _start_of(name: str, is_torch: bool) -> str:
    """Return the line that reads an array from its own first entry, wherever that lies."""
    if is_torch:
        return f"{name}.data_ptr()      # not the start of its storage, and no read of several aligned entries"
    return f"{name}.ctypes.data      # not the start of its base, and no read of several aligned entries"


def _refused(findings: Sequence[Finding]) -> list[Finding]:
    return [f for f in findings if f.refuses]


def _compare(
    setting: Setting,
    way: _Way,
    primals: Primals,
    delta: Delta,
    what: str,
    fix: str = "",
    *,
    against: str = "contiguous arrays",
    raw: bool = False,
) -> list[Finding]:
    """Compare one call with the answer to contiguous arrays."""
    subject: Rule = setting.subject if raw else on_copies(setting.subject)
    actual = attempt(lambda: values_of(subject, primals, delta))
    if isinstance(actual, Raised):
        reason = f"{what}: {type(actual.error).__name__}: {actual.error}; {against} do not raise"
        return [refuse(ARGUMENTS, reason, fix)]
    plain = map_delta(contiguous, way.delta)
    tolerance = self_tolerance_at(setting.subject, setting.oracles, way.primals, plain, setting.numerics)
    reason = f"{what} gives another answer than {against}"
    return [
        _named(compare_values(n, actual[n], way.expected[n], tolerance, reason), fix, against)
        if n in actual
        else refuse(n, f"{what}: no cotangent", fix)
        for n in way.expected
    ]


def _named(finding: Finding, fix: str, against: str) -> Finding:
    """Return a refusing finding as one of layout, which no number of roundings is, and which comes before precision."""
    if finding.verdict is not Verdict.WRONG:
        return finding
    evidence = finding.evidence
    values = dict.fromkeys([against], next(iter(evidence.oracles.values()))) if evidence.oracles else {}
    return replace(finding, ratio=np.inf, evidence=replace(evidence, oracles=values, tolerance=None, fix=fix))
