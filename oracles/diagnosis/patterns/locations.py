"""Patterns in where it is wrong: at values (zeros, ties, masks, repeated indices) or at places (rows, borders).

Wrong at certain values means more than wrong where they happen to stand: once the values are cured (zeros moved away,
ties broken, masks cleared), everything is right. Wrong at certain places means that shuffled values change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from oracles.diagnosis.experiments import Symptoms, Trial, fits, near, spreads
from oracles.rule import Array, is_differentiable

Mask: TypeAlias = Callable[[Trial], Array]


class Values(NamedTuple):
    """Values of a primal that may cause trouble: where they are, in words, and a cure for them."""

    pattern: str
    words: str
    mask: Mask
    cure: Callable[[Array], Array]
    name: str


def wrong_only_at_values(pattern: str) -> Callable[[Symptoms], str | None]:
    """Return the pattern of one kind of values."""

    def found(s: Symptoms) -> str | None:
        if s.got is None or s.got.shape != s.want.shape:
            return None
        return next((told for v in values(s) if v.pattern == pattern and (told := _told(s, v))), None)

    return found


def _told(s: Symptoms, v: Values) -> str | None:
    if not s.always(lambda t: bool(np.any(v.mask(t))) and not np.any(t.wrong & ~v.mask(t))):
        return None
    cured = s.at({**s.primals, v.name: v.cure(s.primals[v.name])}, s.drawn_delta(2))
    if cured is None or not near(cured.got, cured.want) or not np.any(cured.telling):
        return None
    if np.any(cured.wrong) or np.any(~np.isfinite(cured.allowed)):
        return None
    return f"wrong only {v.words}{how(s)}; right once there are none"


def values(s: Symptoms) -> Iterator[Values]:
    """Every kind of values that is tried."""
    for name, array in s.primals.items():
        if is_differentiable(array):
            yield Values("zeros", f"where {name} is exactly 0", _at(name, lambda a: a == 0), _nonzero, name)
            yield Values("ties", f"at ties, where entries of {name} are equal", _tied(name), _untied, name)
            for words, test, cure in SIGNS:
                yield Values("signs", f"where {name} is {words}", _at(name, test), cure, name)
            yield from _of_sizes(name, s)
        elif array.dtype.kind == "b":
            yield Values("masked", f"where {name} is set", _masked(name, True), np.zeros_like, name)
            yield Values("masked", f"where {name} is not set", _masked(name, False), np.ones_like, name)
        elif array.ndim and s.want.ndim and array.size <= s.want.shape[0]:
            words = f"in the rows that {name} references more than once"
            yield Values("repeated_indices", words, _repeated(name), _unrepeated, name)


def _nonzero(a: Array) -> Array:
    return np.where(a == 0, 0.75, a)  # all to one value: what is tied stays tied


def _untied(a: Array) -> Array:
    rng = np.random.default_rng(3)
    return np.where(a == 0, rng.uniform(0.1, 0.3, a.shape), a * rng.uniform(0.75, 1, a.shape))


def _unrepeated(a: Array) -> Array:
    return np.arange(a.size, dtype=a.dtype).reshape(a.shape)


def _bounded(a: Array) -> Array:
    return np.asarray(a / max(float(np.max(np.abs(a), initial=0.0)), 1.0))


SIGNS: list[tuple[str, Callable[[Array], Array], Callable[[Array], Array]]] = [
    ("negative", lambda a: a < 0, np.abs),
    ("positive", lambda a: a > 0, lambda a: -np.abs(a)),
    ("negative or 0", lambda a: a <= 0, lambda a: np.maximum(np.abs(a), 0.5)),
    ("positive or 0", lambda a: a >= 0, lambda a: -np.maximum(np.abs(a), 0.5)),
]
SIZES: list[tuple[str, Callable[[Array], Array]]] = [("|{}|", np.abs), ("{}", np.positive), ("-{}", np.negative)]


def _of_sizes(name: str, s: Symptoms) -> Iterator[Values]:
    """Large values: what is wrong starts where what is right ends."""
    wrong, right = s.first.wrong, ~s.first.wrong & s.first.telling
    for words, key in SIZES:
        sizes = _over(key(s.primals[name]), s.want)
        least, rest = np.min(sizes[wrong], initial=np.inf), np.max(sizes[right], initial=0.0)
        if least > max(rest, 1.0):
            told = f"where {words.format(name)} is large, from {least:.4g} on"
            within = f" (right up to {rest:.4g})" if rest else ""
            yield Values("saturated", told + within, _at(name, partial(_from, key, least)), _bounded, name)


def _from(key: Callable[[Array], Array], least: float, a: Array) -> Array:
    return key(a) >= least


def _at(name: str, test: Callable[[Array], Array]) -> Mask:
    return lambda t: _over(test(t.primals[name]), t.want)


def _over(a: Array, want: Array) -> Array:
    """Spread an array over ``want``: axes that it lacks are taken at the end, or else at the front.

    Of an array over something else (a mask of scores, say) only the largest entry counts, anywhere.
    """
    if a.shape == want.shape[: a.ndim]:
        return np.broadcast_to(a.reshape(*a.shape, *(1,) * (want.ndim - a.ndim)), want.shape)
    everywhere = a if spreads(a.shape, want.shape) else a.max(initial=a.dtype.type(0))
    return np.broadcast_to(everywhere, want.shape)


def _masked(name: str, value: bool) -> Mask:
    return _at(name, lambda a: a == value)


def _tied(name: str) -> Mask:
    def tied(a: Array) -> Array:
        _, where, counts = np.unique(a, return_inverse=True, return_counts=True)
        return np.asarray(counts[where].reshape(a.shape) > 1)

    return _at(name, tied)


def _repeated(name: str) -> Mask:
    return lambda t: _over(_counts(t, name) > 1, t.want)


def _counts(t: Trial, name: str) -> Array:
    return np.bincount(t.primals[name].ravel() % len(t.want), minlength=len(t.want))


def how(s: Symptoms) -> str:
    """Say what stands in the wrong entries, where all have it in common."""
    t = s.first
    got, want, room = t.got[t.wrong], t.want[t.wrong], t.allowed[t.wrong]
    count = f" ({got.size} of {t.want.size} entries)"
    with np.errstate(all="ignore"):
        if np.all(np.isnan(got)):
            return count + ": NaN there"
        if not np.any(got):
            return count + ": zero there"
        if fits(got, -want, room):
            return count + ": of the wrong sign there"
        if not np.any(np.abs(want) > room):
            return count + ": where the oracle has zero"
        k = float(np.sum(got * want) / np.sum(want * want))
        if got.size > 1 and fits(got, k * want, 2 * abs(k) * room):
            return count + f": {k:.6g} times the oracle's there"
    return count


def wrong_only_in_places(s: Symptoms) -> str | None:
    """Always the same rows, columns, steps, or border."""
    if s.got is None or s.got.shape != s.want.shape:
        return None
    for words, mask in places(s):
        trials = (s.first, *([] if s.is_output else [s.other_delta]), s.shuffled)
        if all(t is not None and _is_confined(t, mask(t)) for t in trials):
            return f"wrong only {words}{how(s)}, right everywhere else"
    return None


def _is_confined(t: Trial, mask: Array) -> bool:
    """Return whether all that is wrong lies in the mask, most of the mask is wrong, and something else is right."""
    count, outside = np.count_nonzero(t.wrong), t.telling & ~mask
    confined = np.any(outside) and not np.any(t.wrong & outside)
    return bool(confined and count and 2 * count > np.count_nonzero(t.telling & mask))


def places(s: Symptoms) -> Iterator[tuple[str, Mask]]:
    """Every set of places that is tried, from the most particular on."""
    shape, wrong = s.want.shape, s.first.wrong
    for name, array in s.primals.items():
        if array.dtype.kind in "iu" and len(shape) and array.shape == shape[:-1]:
            yield f"at the entry that {name} names in each row", partial(_named_entry, name=name)
            yield f"off the entry that {name} names in each row", partial(_other_entries, name=name)
    if len(shape) > 1 and min(shape[-2:]) > 1:
        i, j = np.indices(shape[-2:])
        inside = (i > 0) & (i < shape[-2] - 1) & (j > 0) & (j < shape[-1] - 1)
        for words, mask in (
            ("on the diagonal of the last two axes", i == j),
            ("on the border of the last two axes", ~inside),
            ("inside the border of the last two axes", inside),
            ("above the diagonal of the last two axes", i < j),
            ("below the diagonal of the last two axes", i > j),
        ):
            if not words.startswith("on the border") or np.all(np.any(wrong, axis=-1)[..., [0, -1]]):
                yield words, partial(_fixed, np.asarray(mask))
    if np.count_nonzero(wrong) == 1:
        yield f"at [{', '.join(str(i[0]) for i in np.nonzero(wrong))}]", partial(_fixed, wrong)
    for axis, n in enumerate(shape):
        others = tuple(a for a in range(len(shape)) if a != axis)
        hit = np.any(wrong, axis=others)
        if n > 1 and not np.all(hit):
            mask = hit.reshape([n if a == axis else 1 for a in range(len(shape))])
            yield f"{_indices(np.flatnonzero(hit), n)} along axis {axis}", partial(_fixed, np.asarray(mask))


def _named_entry(t: Trial, name: str) -> Array:
    return np.asarray(t.primals[name][..., None] == np.arange(t.want.shape[-1]))


def _other_entries(t: Trial, name: str) -> Array:
    return ~_named_entry(t, name)


def _fixed(mask: Array, t: Trial) -> Array:
    return np.broadcast_to(mask, t.want.shape)


def _indices(hit: Array, n: int) -> str:
    steps = np.diff(hit)
    if hit.size == 1:
        return {0: "in the first slice", n - 1: "in the last slice"}.get(int(hit[0]), f"at index {hit[0]}")
    if np.all(steps == 1) and hit[-1] == n - 1:
        return f"in the last {hit.size} slices"
    if np.all(steps == 1) and hit[0] == 0:
        return f"in the first {hit.size} slices"
    if hit.size > 2 and np.all(steps == steps[0]):
        return f"at every {steps[0]}. index from {hit[0]} on"
    return f"at the indices {', '.join(map(str, hit[:8]))}"


def zero_in_some(s: Symptoms) -> str | None:
    """Zero in some entries where the oracle is not, right in all others."""

    def holds(t: Trial) -> bool:
        wrong = t.wrong
        return bool(np.any(wrong) and np.any(t.telling & ~wrong) and not np.any(t.got[wrong]))

    told = s.got is not None and s.got.shape == s.want.shape and s.always(holds)
    return f"zero in {np.count_nonzero(s.first.wrong)} of {s.want.size} entries, right in all others" if told else None


def sign_of_some(s: Symptoms) -> str | None:
    """Right in magnitude, the sign wrong in some entries."""

    def holds(t: Trial) -> bool:
        return bool(np.any(t.wrong)) and fits(np.abs(t.got), np.abs(t.want), t.allowed)

    if s.got is None or s.got.shape != s.want.shape or not s.always(holds):
        return None
    if np.all(s.got >= 0) and s.other_delta is not None and np.all(s.other_delta.got >= 0):
        return "it is the absolute value of the oracle's"
    return (
        f"the sign is wrong in {np.count_nonzero(s.first.wrong)} of {s.want.size} entries, the magnitude right in all"
    )


def clipped(s: Symptoms) -> str | None:
    """Cut off at a bound."""
    if s.got is None or s.got.shape != s.want.shape or not s.want.size or s.is_output:
        return None
    bound = float(np.max(np.abs(s.got)))
    if not np.count_nonzero(np.abs(s.got) == bound) > 1 and s.other_delta is not None:
        bound = max(bound, float(np.max(np.abs(s.other_delta.got), initial=0.0)))
    held = s.always(lambda t: fits(t.got, np.clip(t.want, -bound, bound), t.allowed))
    return f"it is the oracle's value clipped to ±{bound:.6g}: gradient clipping inside the layer" if held else None


def repeated_divided(s: Symptoms) -> str | None:
    """Rows referenced more than once, divided by how often."""
    for name, index in s.primals.items():
        if index.dtype.kind in "iu" and index.ndim and s.want.ndim and not s.is_output:

            def holds(t: Trial, name: str = name) -> bool:
                counts = _counts(t, name)
                k = (1 / np.maximum(counts, 1)).reshape(-1, *(1,) * (t.want.ndim - 1))
                return bool(np.any(counts > 1)) and fits(t.got, k * t.want, k * t.allowed)

            if s.always(holds):
                return (
                    f"rows that {name} references more than once are divided by how often: a mean where a sum belongs"
                )
    return None
