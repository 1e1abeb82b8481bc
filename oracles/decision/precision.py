"""Is it the formula, or are it digits? A wrong formula does not shrink with the precision, a rounding error does."""

from __future__ import annotations

import numpy as np

from oracles.exact.formula import in_exact_arithmetic
from oracles.rule import Array, NotPerturbable, as_tuple, is_differentiable, with_dtype
from oracles.tolerance import named_outputs, precision_of, unit_roundoff
from oracles.verdict import Setting

COARSER = ("float32", "bfloat16", "float16")


def right_up_to(got: Array, want: Array, allowed: Array, precision: str) -> str:
    """Return words for the coarser precision that the whole array is right up to; "" if it is none.

    The errors must look like rounding: within what that precision allows, on most entries rather than on a few, not
    all by one factor; and the values themselves must be representable there, or, for float32, the errors of the size
    of its rounding.
    """
    error = np.abs(got - want)
    off = error > allowed
    if not np.any(off):
        return ""
    for coarse in COARSER:
        scale = unit_roundoff(coarse) / unit_roundoff(precision)
        if scale <= 1 or not np.all(error <= scale * allowed):
            continue
        spread_out = np.count_nonzero(off) >= 0.5 * np.count_nonzero(want)
        with np.errstate(over="ignore"):
            stored = coarse != "bfloat16" and np.array_equal(got, got.astype(coarse).astype(np.float64))
        size = 2.0**-7 * unit_roundoff(coarse) * np.median(np.abs(want[off]))
        sized = coarse == "float32" and np.count_nonzero(off) > 2 and np.median(error[off]) >= size
        if spread_out and (stored or sized) and not _one_factor(got, want):
            return f"right up to {coarse}: it is computed in {coarse} somewhere; declare precision={coarse!r}"
    return ""


def _one_factor(got: Array, want: Array) -> bool:
    """Return whether got is one constant times want: a formula's error, not rounding's."""
    seen = want != 0
    factors = got[seen] / want[seen] - 1
    return factors.size > 1 and bool(np.ptp(factors) < 0.25 * np.max(np.abs(factors)))


def formula_is_right(setting: Setting, name: str, want: Array, allowed: Array, refused: Array) -> bool | None:
    """Return whether the subject's error comes from its arithmetic rather than its formula; ``None`` if none can tell.

    Its own pullback is evaluated in exact arithmetic, if it runs on balls, or else in a finer precision (long double
    has 11 bits more than float64): the error of a formula stays, that of its arithmetic goes. Where there is no finer
    one it must be smaller than in float32 by most of 29 bits, since a formula's small error hides behind float32's.
    """
    fed = precision_of({n: a for n, a in setting.primals.items() if is_differentiable(a)})
    finer = "longdouble" if fed == "float64" else "float64"
    closer = _in_balls(setting, name)
    if closer is None and np.finfo(finer).eps < unit_roundoff(fed):
        closer = _in_dtype(setting, name, finer)
    if closer is not None:
        with np.errstate(invalid="ignore"):
            return bool(np.all((np.abs(closer - want) <= allowed)[refused]))
    here, coarse = _in_dtype(setting, name, None), _in_dtype(setting, name, "float32")
    if here is None or coarse is None:
        return None
    worst, coarsely = (float(np.max(np.abs(got - want)[refused], initial=0.0)) for got in (here, coarse))
    return True if worst <= coarsely * 2.0**-23 else None


def _in_balls(setting: Setting, name: str) -> Array | None:
    """Return the subject's own output or cotangent in exact arithmetic; ``None`` where it does not run on balls."""
    try:
        return in_exact_arithmetic(setting.subject, setting.primals, setting.delta)[name]
    except (NotPerturbable, KeyError):
        return None


def _in_dtype(setting: Setting, name: str, dtype: str | None) -> Array | None:
    """Return the subject's own output or cotangent in a dtype; ``None`` where it does not compute in it."""
    primals = with_dtype(dict(setting.primals), dtype) if dtype else setting.primals
    try:
        with np.errstate(all="ignore"):
            y, pullback = setting.subject(**primals)
            delta = with_dtype(setting.delta, dtype) if dtype else setting.delta
            got = np.asarray(named_outputs(as_tuple(y), dict(pullback(delta)))[name])
    except Exception:
        return None
    return None if dtype and got.dtype != np.dtype(dtype) else got
