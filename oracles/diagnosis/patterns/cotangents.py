"""Patterns that the answer to another delta shows, and the patterns of whole calls: state, layout, a wrong forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.diagnosis.experiments import Symptoms, Trial, fits, near
from oracles.finite_differences import directional_derivative
from oracles.rule import Array, as_tuple, is_differentiable, with_dtype

Change: TypeAlias = Callable[[Trial], Any]
Part: TypeAlias = Callable[[Array], Array]
MOST_PULLS = 32
CLIPS = (1.0, 0.5, 0.1, 2.0, 5.0, 10.0)

ENTRYWISE: list[tuple[str, str, Part]] = [
    ("delta_ones", "delta taken as all ones", np.ones_like),
    ("delta_abs", "|delta| in the place of delta", np.abs),
    ("delta_positive", "delta > 0 in the place of delta", lambda d: (d > 0).astype(np.float64)),
    ("delta_positive", "max(delta, 0) in the place of delta", lambda d: np.maximum(d, 0)),
    ("delta_sign", "the sign of delta in its place", np.sign),
    ("delta_summed", "every entry of delta replaced by delta's sum", lambda d: np.full_like(d, d.sum())),
    ("delta_summed", "every entry of delta replaced by delta's mean", lambda d: np.full_like(d, d.mean())),
    ("delta_squared", "delta's square in the place of delta", np.square),
    *(("delta_clipped", f"delta clipped to ±{c:g}", partial(np.clip, a_min=-c, a_max=c)) for c in CLIPS),
]


def changes(s: Symptoms) -> Iterator[tuple[str, str, Change]]:
    """Everything that a backward may have taken for delta: pattern, words, and how to make it."""
    for pattern, words, part in ENTRYWISE:
        yield pattern, words, partial(_every_part, part)
    parts = as_tuple(s.delta)
    for i, d in enumerate(parts):
        which = f"delta[{i}]" if len(parts) > 1 else "delta"
        if len(parts) > 1:
            yield "term_missing", f"the contribution of output[{i}] missing", partial(_one_part, i, np.zeros_like)
        for pattern, words, part in _within(np.shape(d), which):
            yield pattern, words, partial(_one_part, i, part)
    for name, index in s.primals.items():
        if index.dtype.kind in "iu" and index.ndim and np.shape(parts[0])[: index.ndim] == index.shape:
            for end in ("last", "first"):
                told = f"of rows that {name} references more than once, only the {end} reference counted"
                yield "repeated_indices", told, partial(_one_reference, name, end)


def _within(shape: tuple[int, ...], which: str) -> Iterator[tuple[str, str, Part]]:
    """What may become of one array of delta: entries dropped, or in another order."""
    if len(shape) > 1:
        yield "delta_rearranged", f"{which} transposed", lambda d: d.swapaxes(-1, -2).reshape(d.shape)
        yield "delta_rearranged", f"{which} read in Fortran order", lambda d: d.ravel("F").reshape(d.shape)
    if np.prod(shape) > 1:
        yield "delta_first_only", f"only the first entry of {which} used", _only_first_entry
    for axis in (a for a, n in enumerate(shape) if n > 1):
        yield "delta_rearranged", f"{which} reversed along axis {axis}", partial(np.flip, axis=axis)
        for index, end in ((0, "first"), (-1, "last")):
            where = f"the {end} step of {which} along axis {axis}"
            yield "delta_first_only", f"only {where} used", partial(_kept, axis=axis, index=index)
            yield "term_missing", f"the contribution of {where} missing", partial(_dropped, axis=axis, index=index)


def _every_part(f: Part, t: Trial) -> Any:
    return tuple(map(f, t.delta)) if isinstance(t.delta, tuple) else f(t.delta)


def _one_part(i: int, f: Part, t: Trial) -> Any:
    if not isinstance(t.delta, tuple):
        return f(t.delta)
    return tuple(f(d) if k == i else d for k, d in enumerate(t.delta))


def _only_first_entry(d: Array) -> Array:
    kept = np.zeros_like(d)
    kept.flat[0] = d.flat[0]
    return kept


def _kept(d: Array, axis: int, index: int) -> Array:
    return d - _dropped(d, axis, index)


def _dropped(d: Array, axis: int, index: int) -> Array:
    rest = np.moveaxis(d.copy(), axis, 0)
    rest[index] = 0
    return np.moveaxis(rest, 0, axis)


def _one_reference(name: str, end: str, t: Trial) -> Array:
    flat = t.primals[name].ravel()
    rows = np.asarray(t.delta).reshape(flat.size, -1)
    order = np.arange(flat.size) if end == "first" else np.arange(flat.size)[::-1]
    kept = order[np.unique(flat[order], return_index=True)[1]]
    only = np.zeros_like(rows)
    only[kept] = rows[kept]
    return only.reshape(np.shape(t.delta))


def of_another_delta(pattern: str) -> Callable[[Symptoms], str | None]:
    """Return the pattern that the answer is the oracle's for a delta changed in one kind of way."""

    def found(s: Symptoms) -> str | None:
        if s.is_output:
            return None
        tried = ((words, change) for kind, words, change in changes(s) if kind == pattern)
        told = next((words for words, change in tried if s.always(partial(_is_answer_to, change))), None)
        return told and f"it is the oracle's value with {told}"

    return found


def _is_answer_to(change: Change, t: Trial) -> bool:
    want, room = t.pull(change(t))
    return near(t.got, want) and bool(np.any(t.got)) and fits(t.got, want, np.maximum(room(), t.allowed))


def delta_ignored(s: Symptoms) -> str | None:
    """The same answer for any delta."""
    if s.is_output or s.got is None or s.other_delta is None or s.other_delta.want.shape != s.got.shape:
        return None
    same = fits(s.other_delta.got, s.got, s.allowed) and not fits(s.other_delta.want, s.want, s.allowed)
    return "the answer is the same for every delta: the incoming cotangent is ignored" if same else None


def block_diagonal(s: Symptoms) -> str | None:
    """Only the diagonal part of the Jacobian along an axis: no index hears of another one's delta."""
    if s.is_output or isinstance(s.delta, tuple) or s.got is None or s.got.shape != s.want.shape:
        return None
    pairs = [(a, o) for a, n in enumerate(np.shape(s.delta)) for o, m in enumerate(s.want.shape) if n == m]
    for axis, own in pairs:
        if 1 < s.want.shape[own] <= MOST_PULLS and s.always(partial(_is_answer_by_blocks, axis=axis, own=own)):
            return (
                f"each index along axis {own} got only the contribution of the same index of delta's axis {axis}: "
                "the off-diagonal part of the Jacobian is missing"
            )
    return None


def _is_answer_by_blocks(t: Trial, axis: int, own: int) -> bool:
    pulled = [t.pull(_kept(t.delta, axis, i)) for i in range(t.want.shape[own])]
    want = np.stack([np.take(a, i, own) for i, (a, _) in enumerate(pulled)], own)
    if not near(t.got, want):
        return False
    room = np.stack([np.take(room(), i, own) for i, (_, room) in enumerate(pulled)], own)
    return fits(t.got, want, np.maximum(room, t.allowed))


def not_repeatable(s: Symptoms) -> str | None:
    """Another answer to the same question: state between calls, or memory read in another order."""
    again = s.repeated
    if s.got is None or again is None or again.got is None or np.shape(again.got) != s.got.shape:
        return None
    room = s.allowed if s.got.shape == s.want.shape else np.zeros(s.got.shape)
    if fits(np.nan_to_num(again.got), np.nan_to_num(s.got), room):
        return None
    strided = [a for a in (*s.primals.values(), *as_tuple(s.delta)) if not np.asarray(a).flags.c_contiguous]
    if not fits(again.got, s.want, s.allowed):
        return None if strided else "the same call gave another answer the second time: state is kept between calls"
    if strided:
        return "right for contiguous copies of the same arrays: it reads them in memory order"
    return "right when called again with copies of the same arrays: it keeps state between calls, or wrote into them"


def primal_transposed(s: Symptoms) -> str | None:
    """Right if a square primal were its transpose: W where Wᵀ belongs."""
    if s.is_output or s.got is None or s.got.shape != s.want.shape:
        return None
    square = [n for n, a in s.primals.items() if np.ndim(a) > 1 and a.shape[-1] == a.shape[-2] > 1]
    told = next((n for n in square if s.always(partial(_is_answer_with_transposed, s, n))), None)
    return told and f"it is the oracle's value with {told} transposed: a transpose too many, or one is missing"


def _is_answer_with_transposed(s: Symptoms, name: str, t: Trial) -> bool:
    other = s.trial(t.got, {**t.primals, name: t.primals[name].swapaxes(-1, -2)}, t.delta)
    return near(t.got, other.want) and bool(np.any(t.got)) and fits(t.got, other.want, other.allowed)


def backward_of_own_forward(s: Symptoms) -> str | None:
    """The output is wrong, and the cotangent is the derivative of that wrong output."""
    if s.primal_agrees or s.is_output or s.got is None or s.got.shape != s.want.shape:
        return None
    for k in range(3):
        direction = np.random.default_rng(k).standard_normal(s.want.shape)
        room = float(np.sum(s.allowed * np.abs(direction)))
        primals = {n: np.array(with_dtype(a, np.float64)) if is_differentiable(a) else a for n, a in s.primals.items()}
        slope, radius = directional_derivative(s.subject, primals, s.delta, {s.name: direction})
        here, there = (float(np.sum(a * direction)) for a in (s.got, s.want))
        if not abs(here - slope) <= radius + room < abs(there - slope):
            return None
    return "it is the derivative of the subject's own output, and that output is wrong: look at the forward pass"
