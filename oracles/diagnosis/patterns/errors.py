"""Patterns that the error shows: a known array added or multiplied, a term along an axis missing, coarse rounding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from oracles.diagnosis.experiments import Symptoms, Trial, fits, spreads
from oracles.diagnosis.patterns.values import MOST_AXES, slope
from oracles.rule import Array, as_tuple, is_differentiable
from oracles.tolerance import unit_roundoff

REROLLED = 0.3  # of the error's norm: a smooth error bends far less while its input moves by a few roundings


def known_arrays(t: Trial) -> dict[str, Array]:
    """Return the arrays that a backward has at hand, by what a report calls them."""
    primals = {n: np.asarray(a) for n, a in t.primals.items() if is_differentiable(a)}
    return {**primals, **({"the output": t.y[0]} if len(t.y) == 1 else {})}


def summands(t: Trial) -> dict[str, Array]:
    """Return what may be found added to a cotangent, of its shape."""
    found = {"delta" if i == 0 else f"delta[{i}]": part for i, part in enumerate(as_tuple(t.delta))}
    found |= {f"the cotangent of {n}": a for n, a in t.answers.items() if n in t.primals and n != t.name}
    known = known_arrays(t)
    own = {t.name: known.pop(t.name)} if t.name in known else {}
    found |= {**own, **{f"the sign of {n}": np.sign(a) for n, a in own.items()}, **known}
    return {n: a for n, a in found.items() if np.shape(a) == t.want.shape}


def added_constant(s: Symptoms) -> str | None:
    """One number added to every entry."""
    if s.got is None or s.want.size < 2 or s.got.shape != s.want.shape:
        return None
    c, doubt = slope(s.first.error, np.ones(s.want.shape), s.allowed, None)
    told = f"the error is the constant {float(c):.6g}, in every entry and for every delta"
    return (
        told
        if s.always(lambda t: bool(np.all(t.wrong)) and fits(t.error, np.full_like(t.want, c), t.allowed + doubt))
        else None
    )


def added_array(s: Symptoms) -> str | None:
    """A known array times one number added: weight decay, a skip path, another term."""
    if s.got is None or s.got.shape != s.want.shape:
        return None
    for name, array in summands(s.first).items():
        if np.unique(np.abs(array)).size < 2 and not name.startswith("delta"):
            continue
        c, doubt = slope(s.first.error, array, s.allowed, None)

        def holds(t: Trial, name: str = name, c: Array = c, doubt: Array = doubt) -> bool:
            a = summands(t)[name]
            return bool(np.any(t.wrong)) and fits(t.error, c * a, t.allowed + doubt * np.abs(a))

        if s.always(holds):
            decay = ": a weight decay term in the gradient" if name == s.name else ""
            path = ": an identity (skip) term is " + ("missing" if c < 0 else "too many") if name == "delta" else ""
            return f"the error is {float(c):.6g} × {name}{decay or path}"
    return None


def factors(t: Trial) -> Iterator[tuple[str, Array]]:
    """What an answer may be multiplied with too often or not at all, entry by entry."""
    known = known_arrays(t)
    derivative = "the derivative, d output / d " + t.name
    if not isinstance(t.delta, tuple) and t.want.shape == np.shape(t.delta):
        known[derivative] = t.pull(np.ones(t.want.shape))[0]
    if "the output" in known:
        y = known["the output"]
        known |= {"1 - output": 1 - y, "1 - output²": 1 - y * y}
    for name, a in known.items():
        if spreads(a.shape, t.want.shape):
            yield f"{name}: a factor too many", a
            yield f"1 / {name}: a factor is missing", 1 / a
            yield f"the square of {name}", a * a
            yield f"the square root of {name}", np.sqrt(a)


def known_factor(s: Symptoms) -> str | None:
    """A known array multiplied once too often, or left out, entry by entry."""
    if s.is_output or s.got is None or s.got.shape != s.want.shape:
        return None
    with np.errstate(all="ignore"):
        tried = [(n, a) for n, a in factors(s.first) if np.unique(np.abs(a)).size > 1]
    for name, array in tried:
        with np.errstate(all="ignore"):
            if not fits(s.got, array * s.want, 2 * np.abs(array) * s.allowed):
                continue
        if s.always(partial(_is_product, name=name)):
            return f"it is the oracle's value, entry by entry, times {name}"
    return None


def _is_product(t: Trial, name: str) -> bool:
    a = next(a for n, a in factors(t) if n == name)
    return bool(np.any(t.telling)) and fits(t.got, a * t.want, 2 * np.abs(a) * t.allowed)  # 2: a is rounded as well


def term_along_axis(s: Symptoms) -> str | None:
    """An error with one coefficient per slice along an axis: a term summed over that axis is missing or wrong."""
    ndim = s.want.ndim
    if s.got is None or s.got.shape != s.want.shape or ndim > MOST_AXES or s.is_output:
        return None
    subsets = [tuple(a for a in range(ndim) if mask >> a & 1) for mask in range(1, 2**ndim)]
    for axes in sorted(subsets, key=len, reverse=True):
        n = int(np.prod([s.want.shape[a] for a in axes]))
        for name in ["1", *(n for n, a in known_arrays(s.first).items() if a.shape == s.want.shape)]:
            for both in (False, True) if name != "1" else (False,):
                if n > 2 + both and s.always(partial(_is_spanned, axes=axes, name=name, both=both)):
                    return _term(s, axes, name, both)
    return None


def _is_spanned(t: Trial, axes: tuple[int, ...], name: str, both: bool) -> bool:
    """Return whether the error along the axes is spanned by a known array, or by it and a constant."""
    flat = [np.moveaxis(a, axes, range(-len(axes), 0)) for a in (t.error, t.allowed, known_arrays(t).get(name, t.want))]
    error, room, a = (f.reshape(*f.shape[: f.ndim - len(axes)], -1) for f in flat)
    basis = np.stack(([np.ones_like(a)] if both or name == "1" else []) + ([a] if name != "1" else []), axis=-1)
    rest = error - np.einsum("...nk,...k->...n", basis, np.einsum("...kn,...n->...k", np.linalg.pinv(basis), error))
    return bool(np.any(t.wrong)) and fits(
        rest, np.zeros_like(rest), room + np.linalg.norm(room, axis=-1, keepdims=True)
    )


def _term(s: Symptoms, axes: tuple[int, ...], name: str, both: bool) -> str:
    where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"
    if name == "1":
        t = s.first
        centred = fits(t.want.sum(axes), np.zeros_like(t.want.sum(axes)), t.allowed.sum(axes))
        mean = f" — the oracle's sums to zero along {where}, this does not: a mean is not subtracted" if centred else ""
        return f"the error is the same number all along {where}{mean or ': a term summed over it is missing or wrong'}"
    constant = " plus another" if both else ""
    return f"along {where} the error is a number times {name}{constant}: a term summed over {where} is missing or wrong"


def coarse_rounding(s: Symptoms) -> str | None:
    """Right up to a coarser precision, with errors that are rounding: they are drawn anew when the input moves."""
    if s.got is None or s.got.shape != s.want.shape:
        return None
    u = unit_roundoff(s.precision)
    for name in ("float32", "float16", "bfloat16"):
        ratio = unit_roundoff(name) / u
        if ratio > 1 and fits(s.got, s.want, ratio * s.allowed) and _rerolls(s, name, ratio):
            cast = name != "bfloat16" and np.array_equal(s.got.astype(name).astype(np.float64), s.got)
            error, size = np.abs(s.got - s.want), np.abs(s.want)
            if not cast and np.median(error) < 2.0**-7 * unit_roundoff(name) * np.median(size):
                return None  # digits are lost, though not as many as this precision loses
            return f"right up to {name}: " + ("the answer was cast to it" if cast else "something is computed in it")
    return None


def _rerolls(s: Symptoms, name: str, ratio: float) -> bool:
    """Return whether the error jumps where it should be straight: along a line of a few roundings of that precision."""
    errors = [s.first.error]
    for k in (1, 2):
        rng = np.random.default_rng(1)  # the same direction each time
        move = partial(_moved, step=4 * k * unit_roundoff(name), rng=rng)
        delta = tuple(map(move, s.delta)) if isinstance(s.delta, tuple) else move(s.delta)
        moved = s.at({n: move(a) for n, a in s.primals.items()}, delta)
        if moved is None or not fits(moved.got, moved.want, ratio * moved.allowed):
            return False
        errors.append(moved.error)
    bend = np.linalg.norm(errors[2] - 2 * errors[1] + errors[0])
    return bool(bend > REROLLED * max(np.linalg.norm(e) for e in errors))


def _moved(a: Array, step: float, rng: np.random.Generator) -> Array:
    return np.asarray(a * (1 + step * rng.uniform(-1, 1, np.shape(a)))) if is_differentiable(a) else a
