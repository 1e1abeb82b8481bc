"""Tell rounded sums from rounded intermediates: a sum of one term needs no accumulator."""

from __future__ import annotations

from functools import partial

import numpy as np

from oracles.constants import EXPERIMENT_SEED, MORE_SAMPLES, SINGLE_TERMS
from oracles.decision.comparison import Comparison
from oracles.rule import Output, Rule, as_tuple, with_dtype
from oracles.tolerance import tolerance_at, values_of
from oracles.user_code import Raised, attempt


def errs_without_sums(comparison: Comparison) -> bool | None:
    """Return whether the subject errs for a delta of one entry, whose backward sums one term; ``None`` if unknown.

    Only a cotangent of several entries of delta is asked, and `SINGLE_TERMS` of these entries are.
    """
    reference = next(iter(comparison.references), None)
    sizes = [np.size(part) for part in as_tuple(comparison.setting.delta)]
    if reference is None or not comparison.is_cotangent or sum(sizes) < 2:
        return None
    rng = np.random.default_rng(EXPERIMENT_SEED)
    for entry in rng.choice(sum(sizes), min(SINGLE_TERMS, sum(sizes)), replace=False):
        errs = attempt(partial(_errs, comparison, reference, _one_entry(comparison.setting.delta, int(entry))))
        if isinstance(errs, Raised):
            return None
        if errs:
            return True
    return False


def _one_entry(delta: Output, entry: int) -> Output:
    """Return a delta with one of its entries, and zeros."""
    parts, start = [], 0
    for part in map(np.asarray, as_tuple(delta)):
        kept = np.arange(start, start + part.size).reshape(part.shape) == entry
        parts.append(np.where(kept, part, np.zeros((), part.dtype)))
        start += part.size
    return tuple(parts) if isinstance(delta, tuple) else parts[0]


def _errs(comparison: Comparison, reference: Rule, delta: Output) -> bool:
    setting, name = comparison.setting, comparison.name
    primals, wide = with_dtype(dict(setting.primals), np.float64), with_dtype(delta, np.float64)
    actual = np.asarray(values_of(setting.subject, setting.primals, delta)[name], np.float64)
    expected = np.asarray(values_of(reference, primals, wide)[name], np.float64)
    estimator = tolerance_at([reference], primals, wide, setting.numerics, fallback=setting.subject)
    return bool(np.any(np.abs(actual - expected) > estimator.estimate(MORE_SAMPLES)[name]))
