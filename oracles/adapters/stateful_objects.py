"""Lift a class that keeps parameters, caches and gradients on itself, as most hand-written networks do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from oracles.adapters import call_patterns
from oracles.adapters.objects import Method, Subject, Update, Where, maker
from oracles.backends.arrays import Framework, backend_for
from oracles.rule import Array, Primals, Rule


def stateful(
    make: Any,
    *,
    forward: Method = "forward",
    backward: Method = "backward",
    params: Sequence[str] | Mapping[str, Where] = (),
    grads: str | Mapping[str, Where] | Update | None = None,
    flush: Method | None = None,
    accumulates: bool | None = None,
    reusable: bool = True,
    arrays: Framework = "numpy",
    device: Any = None,
    dtypes: Sequence[str] | None = None,
    name: str | None = None,
) -> Rule:
    """Lift a stateful class into a Rule over its inputs and parameters.

    Every evaluation makes a fresh object, puts the parameters into it, runs forward, and backward for each delta. How
    else the object may be called is checked against that: forward twice before backward, backward twice, a whole step
    on other data before.

    Args:
        make: makes the object: the class itself, a function without arguments, or an instance to be copied.
        forward, backward: the methods by name, or functions ``f(obj, *inputs)`` and ``f(obj, delta)``. Primals that
            are no parameters are the inputs, by name where forward has such parameters, else in their order.
        params: where parameters live: names of attributes, or ``{primal: place}`` with places like "params['W']" and
            "layers[0].W", or a function ``f(obj, array)`` that puts it there. Created lazily, on the first forward,
            they are replaced after it.
        grads: where gradients are after backward: a pattern for each parameter ("d{}", "grads['{}']"), or
            ``{primal: place}``; a place "return", "return[1]" is in what backward returned; a function ``f(obj)``
            fetches it; `Update` reads it off an optimizer's step. What backward returns is otherwise taken as the
            cotangents of the inputs, or of all primals in their order; parameters that it leaves out are by default
            looked for at "d{}".
        flush: clears gradients and caches, a method's name or ``f(obj)``.
        accumulates: whether a second backward adds to the gradients; by default either is right.
        reusable: whether the object may serve more than one forward and backward.
        arrays, device, dtypes: as in `oracles.manual`.
        name: what reports call it; the class's name by default.

    Raises:
        InvalidInput: when evaluated, if places do not exist or shapes differ: says what there is.
    """
    places: Mapping[str, Where] = dict(params) if isinstance(params, Mapping) else {n: n for n in params}
    sought: Mapping[str, Where] = {}
    if grads is None or isinstance(grads, str):
        sought = {n: (grads or "d{}").format(n) for n in places}
    elif isinstance(grads, Mapping):
        sought = grads
    subject = Subject(
        maker(make, forward), forward, backward, places, sought, grads is None,
        grads if isinstance(grads, Update) else None,
        flush, accumulates, backend_for(arrays, device, None if dtypes is None else tuple(dtypes)),
        name or str(getattr(make, "__qualname__", type(make).__name__)),
    )  # fmt: skip
    ways = {"forward twice, then backward": call_patterns.forward_twice}
    if subject.update is None:  # a step moves the parameters: what follows is at another point
        ways |= {
            "backward twice": call_patterns.backward_twice,
            "a second step on the object": call_patterns.second_step,
        }
    return Rule(
        partial(call_patterns.fresh, subject),
        subject.label,
        framework=subject.backend.framework,
        implementation=make,
        call_patterns={way: partial(f, subject) for way, f in ways.items()} if reusable else {},
        read_error=None if subject.update is None else partial(_blur, tuple(places), abs(subject.update.rate)),
    )


def _blur(names: Sequence[str], rate: float, primals: Primals, u: float) -> dict[str, Array]:
    """Return how much of W's own rounding is left in a gradient read off W − rate · dW."""
    return {n: np.asarray(2 * u * np.abs(primals[n]) / rate, np.float64) for n in names if n in primals}
