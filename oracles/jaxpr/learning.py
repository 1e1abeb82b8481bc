"""What an oracle learns about shapes: programs for many of them, and how to trace the next one.

Which dimensions are tied is nowhere declared. The most general pattern is tried first, every dimension and every
number among the options free. What a trace then turned out to need, this dimension equal to that or four times it,
this one a number, is tried at once the next time; whatever an example contradicts is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from oracles.jaxpr.dimensions import Example, needed
from oracles.jaxpr.patterns import TRACED, Fits, Pattern, fitting, holds, is_symbol, ties
from oracles.jaxpr.program import Program, translate
from oracles.jaxpr.shaker import shaker
from oracles.jaxpr.trace import Trace, is_about_values
from oracles.rule import Array, Perturbation, is_differentiable

SYMBOLIC_FAILURES = 24  # per signature, before only concrete shapes are traced
KEPT = 64  # programs per signature, of symbolic and of concrete shapes


class Translated:
    """NumPy programs of one trace; the shaken ones are written when first asked for.

    Attributes:
        fits: whether they serve given dimensions, none of them zero.
    """

    def __init__(self, traced: Trace, pattern: Pattern, example: Example) -> None:
        self.traced, self.pattern = traced, pattern
        self._conditions, self._unless_empty = tuple(example.conditions), tuple(example.unless_empty)
        self.fits = fitting(pattern, self._conditions)
        self.forward, self.pull = (program.run for program in self._written(noisy=False))
        self._noisy: tuple[Program, Program] | None = None
        self._runs_empty: dict[frozenset[str], bool] = {}

    def _written(self, noisy: bool) -> tuple[Program, Program]:
        t, n = self.traced, len(self.traced.forward.in_avals)
        given = range(n - self.pattern.count(TRACED), n)  # the floats come last
        forward = translate(t.forward, self.pattern, t.width, settings=given, noisy=noisy)
        settings = [i - t.width for i in forward.settings if i >= t.width]
        pull = translate(t.pull, self.pattern, len(t.pull.out_avals), fixed=t.fixed, settings=settings, noisy=noisy)
        return forward, pull

    @cached_property
    def _may_be_empty(self) -> Fits:
        return fitting(self.pattern, self._conditions, least=0)

    @cached_property
    def _fits_empty(self) -> Fits:
        return fitting(self.pattern, self._conditions + self._unless_empty, least=0)

    def serves_empty(self, dims: tuple[Any, ...], arrays: Sequence[Array]) -> bool:
        """Return whether what was traced for full arrays serves these, of which some are empty.

        It does where JAX was told nothing that does not hold here: it takes "not known to be zero" to mean either. And
        where there are no results, whatever it was told: they have their shapes, and all cotangents are zero. Some of
        NumPy's kernels refuse: of a maximum over nothing JAX alone knows the value.
        """
        if not self._may_be_empty(dims):
            return False
        zero = frozenset(str(e) for e, d in zip(self.pattern, dims, strict=True) if d == 0)
        results = self.traced.forward.out_avals[: self.traced.width]
        without_results = all(any(str(n) in zero for n in y.shape) for y in results)
        if not without_results and not self._fits_empty(dims):
            return False
        if zero not in self._runs_empty:
            self._runs_empty[zero] = self._runs(dims, arrays)
        return self._runs_empty[zero]

    def _runs(self, dims: tuple[Any, ...], arrays: Sequence[Array]) -> bool:
        width = self.traced.width
        try:
            with np.errstate(all="ignore"):
                results = self.forward(dims, *arrays)
                deltas = [np.zeros_like(y) for y in results[:width] if is_differentiable(y)]
                self.pull(dims, *results[width:], *deltas)
        except Exception:
            return False
        return True

    def shaken(
        self, dims: Sequence[Any], arrays: Sequence[Array], deltas: Sequence[Array], shake: Perturbation
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Return outputs and cotangents of a shaken run."""
        if self._noisy is None:
            self._noisy = self._written(noisy=True)
        width = self.traced.width
        noise = shaker(shake)
        results = self._noisy[0].run(dims, noise, *arrays) if shake.forward else self.forward(dims, *arrays)
        cotangents = self._noisy[1].run(dims, noise, *results[width:], *deltas)
        return results[:width], cotangents


@dataclass
class Signature:
    """What serves primals of given names, ranks and dtypes, and options of a given form.

    Attributes:
        constant: dimensions as they have been in all examples seen, "" where they differed.
        failures: of symbolic traces.
        programs: from symbolic traces, the latest first.
        concrete: for single shapes, the least recently used first.
        opaque: the primitive that NumPy cannot express, if there is one.
    """

    constant: tuple[Any, ...] = ()
    failures: int = 0
    programs: deque[Translated] = field(default_factory=lambda: deque(maxlen=KEPT))
    concrete: OrderedDict[tuple[Any, ...], Translated] = field(default_factory=OrderedDict)
    opaque: str = ""

    def find_for_empty(self, dims: tuple[Any, ...], arrays: Sequence[Array]) -> Translated | None:
        """Return a program that serves these arrays, some of them empty, though it was traced for full ones."""
        return next((program for program in self.programs if program.serves_empty(dims, arrays)), None)

    def find(self, dims: tuple[Any, ...]) -> Translated | None:
        """Return a program that serves these dimensions, if there is one."""
        for program in self.programs:
            if program.fits(dims):
                return program
        if dims in self.concrete:
            self.concrete.move_to_end(dims)
        return self.concrete.get(dims)

    def keep(self, dims: tuple[Any, ...], program: Translated) -> None:
        """Keep a program for these dimensions alone, and the latest of those."""
        self.concrete[dims] = program
        if len(self.concrete) > KEPT:
            self.concrete.popitem(last=False)


class Plan(NamedTuple):
    """How to trace: a pattern, and whether JAX is told what is equal in the example."""

    pattern: Pattern
    candid: bool


@dataclass
class Experience:
    """What traces of one reference have taught, whatever the options and ranks.

    Attributes:
        signatures: what serves what.
        conditions: what was equal to what, contradicted by no example yet.
        numbers: symbols of which a trace needed the number.
        known: symbols that, where they are this number, have to be known to be.
        candid: whether a trace had to tell JAX what is equal.
        rigid: whether a trace needed the numbers among the options.
    """

    signatures: dict[Any, Signature] = field(default_factory=dict)
    conditions: dict[str, None] = field(default_factory=dict)
    numbers: set[str] = field(default_factory=set)
    known: set[tuple[str, float]] = field(default_factory=set)
    candid: bool = False
    rigid: bool = False
    _symbols: dict[Hashable, str] = field(default_factory=dict)

    def attempts(
        self, signature: Signature, dims: tuple[Any, ...], places: Sequence[Hashable], n_arrays: int
    ) -> Iterator[tuple[Pattern, Example]]:
        """Learn from dimensions; yield what is now worth a symbolic trace, the most general first.

        Args:
            signature: what they belong to.
            dims: of the arrays, and the numbers among the options.
            places: of each of them: which axis of what.
            n_arrays: how many are of arrays.
        """
        names = [self._symbols.setdefault(place, f"s{len(self._symbols)}") for place in places]
        values = dict(zip(names, dims, strict=True))
        self.conditions = {c: None for c in self.conditions if holds(c, values) is not False}
        signature.constant = tuple(d if d == c else "" for d, c in zip(dims, signature.constant or dims, strict=True))
        tried: set[Plan] = set()
        while signature.failures < SYMBOLIC_FAILURES:
            plans = (plan for plan in self._plans(values, signature.constant, n_arrays) if plan not in tried)
            plan = next((plan for plan in plans if plan.pattern != dims), None)
            if plan is None:
                return
            tried.add(plan)
            known = {s: values[s] for s in plan.pattern if is_symbol(s)}
            yield plan.pattern, Example(known, plan.candid)

    def _plans(self, values: dict[str, Any], constant: Sequence[Any], n_arrays: int) -> Iterator[Plan]:
        dims = tuple(values.values())
        fixed = {s for s, d in values.items() if d == 0 or s in self.numbers or (s, d) in self.known}
        tied = {s: e for s, e in ties(self.conditions, values).items() if not fixed & {s, e.partition("*")[2], e}}
        free: Pattern = tuple(d if s in fixed else tied.get(s, s) for s, d in values.items())
        free = tuple(TRACED if isinstance(d, float | tuple) else s for s, d in zip(free, dims, strict=True))
        rigid = free[:n_arrays] + dims[n_arrays:]
        steady = tuple(s if c == "" else c for s, c in zip(rigid, constant, strict=True))
        for pattern in (rigid, steady) if self.rigid else (free, rigid, steady):
            yield from (Plan(pattern, candid) for candid in (False, True) if candid >= self.candid)

    def succeeded(self, example: Example) -> None:
        """Learn from a trace."""
        self.candid = example.candid
        self.conditions.update(dict.fromkeys(example.conditions))

    def failed(self, signature: Signature, example: Example, error: Exception) -> None:
        """Learn from a trace that failed."""
        signature.failures += 1
        self.conditions.update(dict.fromkeys(example.conditions))
        self.numbers |= needed(error)
        if is_about_values(error):  # of the floats among the options, where it is not of the primals
            self.rigid = True
        elif example.candid and example.asked and not needed(error):
            self.known.add(list(example.asked)[-1])  # asked last before it failed
