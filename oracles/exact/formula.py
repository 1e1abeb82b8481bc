"""Run a subject's own formulas, forward and backward, in exact arithmetic: an error that stays is no rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oracles.constants import FORMULA_BITS, FORMULA_INPUTS
from oracles.exact.ball_arithmetic import NoMemory, balls_of, run_on_balls, working_precision
from oracles.rule import Array, NotPerturbable, Output, Primals, Rule, as_tuple, is_differentiable
from oracles.tolerance import named_outputs

if TYPE_CHECKING:
    from oracles.exact.balls import Tape


def in_exact_arithmetic(rule: Rule, primals: Primals, delta: Output) -> dict[str, Array]:
    """Return a rule's outputs and cotangents as its own code computes them on numbers of 512 bits, in float64.

    Raises:
        NotPerturbable: if forward or backward does not run on object arrays, if there are more than `FORMULA_INPUTS`
            inputs, or if python-flint is missing.
    """
    if not rule.runs_on_object_arrays or sum(np.size(a) for a in primals.values()) > FORMULA_INPUTS:
        raise NotPerturbable(f"{rule.name} is a framework's, or too large for exact arithmetic")
    try:
        from oracles.exact.balls import Tape
    except ImportError as error:
        raise NotPerturbable("exact arithmetic needs python-flint") from error

    def run(kind: type[Array]) -> dict[str, Array]:
        with working_precision(FORMULA_BITS), np.errstate(all="ignore"):
            return _evaluate(rule, primals, delta, Tape(), kind)

    try:
        return run_on_balls(run, final=NoMemory)
    except ExceptionGroup as group:
        cause = group.exceptions[-1]
        raise NotPerturbable(f"{rule.name} does not run on object arrays: {cause}") from cause


def _evaluate(rule: Rule, primals: Primals, delta: Output, tape: Tape, kind: type[Array]) -> dict[str, Array]:
    """Evaluate forward and pullback on balls, and return the midpoints."""
    y, pullback = rule(**{n: _constants(tape, a, kind) for n, a in primals.items()})
    seeds = tuple(_constants(tape, d, kind) for d in as_tuple(delta))
    results = named_outputs(as_tuple(y), dict(pullback(seeds if isinstance(delta, tuple) else seeds[0])))
    return {n: _midpoints(a) for n, a in results.items()}


def _constants(tape: Tape, array: Array, kind: type[Array]) -> Array:
    """Return a floating array as balls without a derivative; integers as they are."""
    array = np.asarray(array)
    if not is_differentiable(array):
        return array
    entries = [tape.constant(x) for x in array.astype(np.float64).ravel().tolist()]
    return balls_of(tape, entries, array.shape, kind)


def _midpoints(array: object) -> Array:
    """Return the midpoints of balls, and other numbers, in float64."""
    from oracles.exact.balls import Ball

    objects = np.asarray(array, object)
    midpoints = [float(b.value.mid()) if isinstance(b, Ball) else float(b) for b in objects.flat]
    return np.array(midpoints).reshape(objects.shape)
