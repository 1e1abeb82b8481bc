"""A subject's own formulas, forward and backward, in exact arithmetic: what is wrong there is no rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.exact.ball_arithmetic import working_precision
from oracles.exact.ball_arrays import Balls, Untouchable, object_array
from oracles.rule import Array, NotPerturbable, Primals, Rule, as_tuple, is_differentiable
from oracles.tolerance import named_outputs

BITS = 512
MOST_INPUTS = 1024


def in_exact_arithmetic(rule: Rule, primals: Primals, delta: Any) -> dict[str, Array]:
    """Return a rule's outputs and cotangents as its own code gives them on numbers of 512 bits, in float64.

    Raises:
        NotPerturbable: if forward or backward does not run on object arrays, if there are more than MOST_INPUTS inputs,
            or if python-flint is missing.
    """
    if rule.framework or sum(np.size(a) for a in primals.values()) > MOST_INPUTS:
        raise NotPerturbable(f"{rule.name} is a framework's, or too large for exact arithmetic")
    try:
        from oracles.exact.balls import Ball, Tape
    except ImportError as error:
        raise NotPerturbable("exact arithmetic needs python-flint") from error

    for kind in (Balls, np.ndarray):
        tape = Tape()

        def objects(array: Any, kind: Any = kind, tape: Tape = tape) -> Any:
            array = np.asarray(array)
            if not is_differentiable(array):
                return array
            found = object_array([tape.constant(x) for x in array.astype(np.float64).ravel().tolist()], array.shape)
            if kind is not Balls:
                return found
            balls = found.view(Balls)
            balls.tape = tape
            return balls

        try:
            with working_precision(BITS), np.errstate(all="ignore"):
                y, pullback = rule(**{n: objects(a) for n, a in primals.items()})
                seeds = tuple(objects(d) for d in as_tuple(delta))
                came = named_outputs(as_tuple(y), dict(pullback(seeds if isinstance(delta, tuple) else seeds[0])))
                return {
                    n: np.array(
                        [float(b.value.mid()) if isinstance(b, Ball) else float(b) for b in np.asarray(a, object).flat]
                    ).reshape(np.shape(a))
                    for n, a in came.items()
                }
        except Untouchable:
            raise
        except Exception as error:
            failed: Exception = error
    raise NotPerturbable(f"{rule.name} does not run on object arrays: {failed}") from failed
