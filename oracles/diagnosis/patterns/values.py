"""Patterns that the values show: factors, sums, transposes, permutations, and the structure of the error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations, permutations
from typing import Any

import numpy as np

from oracles.diagnosis.experiments import Symptoms, Trial, fits
from oracles.rule import Array, is_differentiable

Move = Callable[[Array], Array]
MOST_AXES = 4  # beyond that there are too many rearrangements to try


def missing(s: Symptoms) -> str | None:
    """No answer at all."""
    return f"no cotangent came back for {s.name}" if s.got is None else None


def all_zero(s: Symptoms) -> str | None:
    """Zero for every delta."""
    zero = s.always(lambda t: not np.any(t.got) and np.shape(t.got) == t.want.shape and bool(np.any(t.telling)))
    return "every entry is zero, whatever delta: the gradient never reaches it" if zero else None


def constant_factor(s: Symptoms) -> str | None:
    """One factor for all entries, and what it equals."""
    if s.got is None or s.got.shape != s.want.shape:
        return None
    k, doubt = slope(s.got, s.want, s.allowed, axes=None)
    if not (np.isfinite(k) and k != 0 and s.always(lambda t: is_multiple(t, k, doubt))):
        return None
    meant = [(c, m) for c, m in scales(s) if c != 1 and s.always(partial(is_multiple, k=np.asarray(np.sign(k) * c)))]
    if meant:
        factor = min((c for c, _ in meant), key=lambda c: abs(c - abs(k)))
        words = dict.fromkeys(m for c, m in meant if c == factor)
        told = f"{np.sign(k) * factor:.6g} times the oracle's: {factor:.6g} is {', or '.join(list(words)[:2])}"
        return "every entry is " + told + (", of the wrong sign" if k < 0 else "")
    if s.always(partial(is_multiple, k=np.asarray(-1.0))):
        return "every entry is -1 times the oracle's: the sign is wrong"
    return f"every entry is {float(k):.10g} times the oracle's"


def is_multiple(t: Trial, k: Array, doubt: Array | float = 0.0) -> bool:
    """Return whether the answer is k times the oracle's, k known up to ``doubt``."""
    return bool(np.any(t.telling)) and fits(t.got, k * t.want, np.abs(k) * t.allowed + doubt * np.abs(t.want))


def slope(got: Array, along: Array, room: Array, axes: tuple[int, ...] | None) -> tuple[Array, Array]:
    """Return k with got ≈ k·along by least squares, one k for all axes or one per slice, and how far k is certain."""
    with np.errstate(all="ignore"):
        size = np.sum(along * along, axis=axes, keepdims=axes is not None)
        k = np.sum(got * along, axis=axes, keepdims=axes is not None) / size
        return k, np.sum(room * np.abs(along), axis=axes, keepdims=axes is not None) / size


def scales(s: Symptoms) -> Iterator[tuple[float, str]]:
    """Factors that mean something here, with their meaning."""
    yield 2.0, "a factor 2 too many"
    yield 0.5, "a factor 2 too few"
    for n, what in ((n, what) for n, what in extents(s) if n > 1):
        yield n, f"{what} — a sum where a mean belongs"
        yield 1 / n, f"1/{what} — a mean where a sum belongs"
        yield n / 2, f"half of {what} — a sum where a mean belongs, and a factor 2 too few"
        yield 2 / n, f"2/{what} — a mean where a sum belongs, and a factor 2 too many"
        yield n**0.5, f"the square root of {what}"
        yield n**-0.5, f"1 over the square root of {what}"
        if n == 2:  # (n - 1)/n is a half, which has better explanations
            continue
        yield (n - 1) / n, f"(n - 1)/n for n = {n}, {what} — sample and population variance mixed up"
        yield n / (n - 1), f"n/(n - 1) for n = {n}, {what} — sample and population variance mixed up"


def extents(s: Symptoms) -> Iterator[tuple[int, str]]:
    """Every extent above one, the axes that have it, and the numbers of entries."""
    named = {**s.primals, **{n: a for n, a in s.first.answers.items() if n.startswith("output")}}
    found: dict[int, list[str]] = {}
    sizes: dict[int, list[str]] = {}
    for name, array in named.items():
        for axis, n in enumerate(np.shape(array)):
            found.setdefault(n, []).append(f"axis {axis} of {name}")
        sizes.setdefault(np.size(array), []).append(name)
        if np.ndim(array) > 2:
            sizes.setdefault(int(np.prod(np.shape(array)[-2:])), []).append(f"the last two axes of {name}")
    for n, where in found.items():
        rows = "N, the number of rows" if any(w.startswith("axis 0") for w in where) else "the extent"
        yield n, f"{rows} ({', '.join(where[:3])})"
    for n, names in sizes.items():
        if n not in found:
            yield n, f"the number of entries ({', '.join(names[:3])})"


def factor_per_group(s: Symptoms) -> str | None:
    """One factor for each slice along an axis: per channel, per row."""
    if s.got is None or s.got.shape != s.want.shape or s.want.ndim < 2:
        return None
    seen = s.first.telling
    for axis in range(s.want.ndim):
        others = tuple(a for a in range(s.want.ndim) if a != axis)
        counts = np.count_nonzero(seen, axis=others)
        if s.want.shape[axis] < 2 or not np.any(counts) or np.any(counts == 1):
            continue
        k, doubt = (np.nan_to_num(a) for a in slope(s.got, s.want, s.allowed, others))
        if s.always(partial(is_multiple, k=k, doubt=doubt)):
            shown = ", ".join(f"{v:.4g}" for v in k.ravel()[:4]) + (", …" if k.size > 4 else "")
            alike = [
                n for n, a in s.primals.items() if np.size(a) == k.size and fits(k.ravel(), a.ravel(), doubt.ravel())
            ]
            known = f": these are the entries of {alike[0]}" if alike else ""
            return f"each slice along axis {axis} is a factor of its own times the oracle's ({shown}){known}"
    return None


def _subsets(ndim: int) -> list[tuple[int, ...]]:
    return [axes for k in range(1, ndim + 1) for axes in combinations(range(ndim), k)]


def not_reduced(s: Symptoms) -> str | None:
    """An axis too many that a sum would have removed."""
    if s.got is None or s.got.size <= s.want.size or s.got.ndim > MOST_AXES or not s.want.size:
        return None
    for axes in _subsets(s.got.ndim):
        for word, reduce in (("sum", np.sum), ("mean", np.mean)):

            def holds(t: Trial, reduce: Any = reduce, axes: tuple[int, ...] = axes) -> bool:
                reduced = reduce(t.got, axis=axes)
                alike = [n for n in reduced.shape if n > 1] == [n for n in t.want.shape if n > 1]
                return alike and bool(np.any(t.telling)) and fits(reduced.reshape(t.want.shape), t.want, t.allowed)

            if s.always(holds):
                return (
                    f"shape {s.got.shape} for {s.want.shape}: its {word} over {_axes(axes)} is the oracle's value — "
                    "an axis that was broadcast is not reduced"
                )
    return None


def reduced_too_far(s: Symptoms) -> str | None:
    """The sum, or the mean, over an axis that should have stayed."""
    for axes in _subsets(s.want.ndim) if s.want.ndim <= MOST_AXES else []:
        if all(s.want.shape[a] == 1 for a in axes):
            continue
        for word, reduce in (("sum", np.sum), ("mean", np.mean)):
            for keep in (True, False):
                if is_moved(s, partial(_reduced, reduce=reduce, axes=axes, keep=keep)):
                    return f"it is the oracle's value reduced by a {word} over {_axes(axes)}, which should stay"
            if is_moved(s, partial(_spread, reduce=reduce, axes=axes)):
                return f"all along {_axes(axes)} it holds the {word} of the oracle's value over {_axes(axes)}"
    return None


def _reduced(a: Array, reduce: Any, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(reduce(a, axis=axes, keepdims=keep))


def _spread(a: Array, reduce: Any, axes: tuple[int, ...]) -> Array:
    return np.broadcast_to(reduce(a, axis=axes, keepdims=True), a.shape)


def _axes(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def is_moved(s: Symptoms, move: Move) -> bool:
    """Return whether the answer is the oracle's with its entries moved, and its tolerance with them."""
    return s.always(lambda t: bool(np.any(t.telling)) and fits(t.got, move(t.want), move(t.allowed)))


def rearranged(s: Symptoms) -> Iterator[tuple[str, str, Move]]:
    """Every rearrangement that is tried: pattern, sentence, and what it does to an array."""
    shape, ndim = s.want.shape, s.want.ndim
    if ndim <= MOST_AXES:
        for axes in list(permutations(range(ndim)))[1:]:
            yield (
                "transposed",
                f"it is the oracle's value transposed: its axes in the order {axes}",
                partial(np.transpose, axes=axes),
            )
        for axes in _subsets(ndim):
            yield "reversed", f"it is the oracle's value reversed along {_axes(axes)}", partial(np.flip, axis=axes)
    if ndim > 1:
        told = "it is the oracle's value with its entries in {} order read in {} order"
        yield "reshaped", told.format("Fortran", "C"), lambda a: a.ravel("F").reshape(shape)
        yield "reshaped", told.format("C", "Fortran"), lambda a: a.ravel().reshape(shape, order="F")
    for axis in range(ndim):
        for step in (1, -1):
            where = f"along axis {axis}, by {step:+d}"
            yield "shifted", f"it is the oracle's value shifted {where}", partial(_shift, axis=axis, step=step)
            yield "shifted", f"it is the oracle's value rolled {where}", partial(np.roll, axis=axis, shift=step)
    if s.got is not None and s.got.shape != shape and s.got.size == s.want.size:
        came = s.got.shape
        yield "shape", f"the right entries in shape {came} for {shape}", lambda a: a.reshape(came)
        yield "shape", f"the right entries in shape {came}, in Fortran order", lambda a: a.reshape(came, order="F")


def _shift(a: Array, axis: int, step: int) -> Array:
    rolled = np.moveaxis(np.roll(a, step, axis), axis, 0).copy()
    rolled[0 if step > 0 else -1] = 0
    return np.moveaxis(rolled, 0, axis)


def rearrangement(pattern: str) -> Callable[[Symptoms], str | None]:
    """Return the pattern that tries the rearrangements of one kind."""

    def found(s: Symptoms) -> str | None:
        return next((text for kind, text, move in rearranged(s) if kind == pattern and is_moved(s, move)), None)

    return found


def permuted(s: Symptoms) -> str | None:
    """Slices along an axis, or entries, in another order: the same one for every delta."""
    if s.got is None or s.got.shape != s.want.shape:
        return None
    for axis in range(s.want.ndim):
        order = _order(*(np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1) for a in (s.got, s.want, s.allowed)))
        if order is not None and is_moved(s, partial(np.take, indices=order, axis=axis)):
            return f"it is the oracle's value with its slices along axis {axis} in the order {order.tolist()}"
    order = _order(*(a.reshape(-1, 1) for a in (s.got, s.want, s.allowed)))
    if order is not None and is_moved(s, lambda a: a.ravel()[order].reshape(a.shape)):
        return f"the right entries in other places: in the order {order.tolist()} of the oracle's, flattened"
    return None


def _order(got: Array, want: Array, room: Array) -> Array | None:
    """Return the permutation of want's rows that gives got's, if it is the only one."""
    if len(want) > 256:
        return None
    found = np.all(np.abs(got[:, None] - want[None]) <= room[None], axis=-1)
    unique = np.all(found.sum(0) == 1) and np.all(found.sum(1) == 1)
    return np.argmax(found, axis=1) if unique else None


def other_name(s: Symptoms) -> str | None:
    """The cotangent of another primal."""
    others = [n for n, a in s.primals.items() if is_differentiable(a) and n != s.name and not s.is_output]
    told = next((n for n in others if s.always(partial(_is_answer_for, name=n))), None)
    return told and f"it is the oracle's cotangent of {told}: names or positions are mixed up"


def _is_answer_for(t: Trial, name: str) -> bool:
    return bool(np.any(t.telling)) and fits(t.got, t.answers[name], t.rooms()[name])
