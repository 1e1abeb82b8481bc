"""What an oracle learns about shapes: programs for many of them, and how to trace the next one.

Which dimensions are tied is nowhere declared. The most general pattern is tried first, every dimension and every
number among the options free; where that does not trace, JAX is told more (`Trust`), or patterns get more rigid.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from oracles.jaxpr.dimensions import Trust, needed
from oracles.jaxpr.patterns import TRACED, Pattern, fitting, ties
from oracles.jaxpr.program import Program, translate
from oracles.jaxpr.shaker import shaker
from oracles.jaxpr.trace import Trace, is_about_values
from oracles.rule import Array, Shake

SYMBOLIC_FAILURES = 12  # per signature, before only concrete shapes are traced
KEPT = 64  # programs per signature, of symbolic and of concrete shapes


class Plan(NamedTuple):
    """How to trace, from the most general: how rigid the pattern is, and what JAX is told."""

    rigidity: int = 0
    trust: Trust = Trust.NOTHING


class Translated:
    """NumPy programs of one trace; the shaken ones are written when first asked for."""

    def __init__(self, traced: Trace, pattern: Pattern, conditions: Iterable[str]) -> None:
        self.traced, self.pattern = traced, pattern
        self.fits = fitting(pattern, conditions)
        self.forward, self.pull = (program.run for program in self._written(noisy=False))
        self._noisy: tuple[Program, Program] | None = None

    def _written(self, noisy: bool) -> tuple[Program, Program]:
        t = self.traced
        return (
            translate(t.forward, self.pattern, t.width, noisy=noisy),
            translate(t.pull, self.pattern, len(t.pull.out_avals), fixed=t.fixed, noisy=noisy),
        )

    def shaken(
        self, dims: Sequence[float], arrays: Sequence[Array], deltas: Sequence[Array], shake: Shake
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Return outputs and cotangents of a shaken run."""
        if self._noisy is None:
            self._noisy = self._written(noisy=True)
        width = self.traced.width
        noise = shaker(shake)
        results = self._noisy[0].run(dims, noise, *arrays)
        cotangents = self._noisy[1].run(dims, noise, *results[width:], *deltas)
        return results[:width], cotangents


@dataclass
class Signature:
    """What has been learnt about primals of given names, ranks and dtypes, and options of a given form.

    Attributes:
        plan: where to begin: the last that has led to a trace.
        conditions: of traces that failed: what is equal to what.
        numbers: symbols whose numbers traces have needed.
        constant: dimensions as they have been in all examples seen, "" where they differed.
        failures: of symbolic traces.
        programs: from symbolic traces, the latest first.
        concrete: for single shapes, the least recently used first.
        opaque: the primitive that NumPy cannot express, if there is one.
    """

    plan: Plan = field(default_factory=Plan)
    conditions: dict[str, None] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    constant: tuple[float | str, ...] = ()
    failures: int = 0
    programs: deque[Translated] = field(default_factory=lambda: deque(maxlen=KEPT))
    concrete: OrderedDict[tuple[float, ...], Translated] = field(default_factory=OrderedDict)
    opaque: str = ""

    def find(self, dims: tuple[float, ...]) -> Translated | None:
        """Return a program that serves these dimensions, if there is one."""
        for program in self.programs:
            if program.fits(dims):
                return program
        if dims in self.concrete:
            self.concrete.move_to_end(dims)
        return self.concrete.get(dims)

    def attempts(self, dims: tuple[float, ...], n_arrays: int) -> Iterator[tuple[Pattern, Plan]]:
        """Learn from an example; yield what is now worth a symbolic trace, the most general first.

        The first ``n_arrays`` dimensions are of arrays, the others come from options.
        """
        self.constant = tuple(d if d == c else "" for d, c in zip(dims, self.constant or dims, strict=True))
        tried: set[tuple[Pattern, Trust]] = set()
        while self.failures < SYMBOLIC_FAILURES:
            for pattern, plan in self._patterns(dims, n_arrays):
                if pattern != dims and (pattern, plan.trust) not in tried:
                    break
            else:
                return
            tried.add((pattern, plan.trust))
            yield pattern, plan

    def _patterns(self, dims: tuple[float, ...], n_arrays: int) -> Iterator[tuple[Pattern, Plan]]:
        """Yield the patterns for these dimensions with the plans that they belong to."""
        names = [f"s{i}" if i < n_arrays else f"o{i - n_arrays}" for i in range(len(dims))]
        values = dict(zip(names, dims, strict=True))
        fixed = {s for s, d in values.items() if not d} | self.numbers
        tied = {s: e for s, e in ties(self.conditions, values).items() if not fixed & {s, e.partition("*")[2], e}}
        free: Pattern = tuple(values[s] if s in fixed else tied.get(s, s) for s in names)
        free = tuple(TRACED if isinstance(d, float) else s for s, d in zip(free, dims, strict=True))
        rigid = free[:n_arrays] + dims[n_arrays:]
        steady = tuple(s if c == "" else c for s, c in zip(rigid, self.constant, strict=True))
        for rigidity, pattern in enumerate((free, rigid, steady)):
            yield from ((pattern, Plan(rigidity, t)) for t in Trust if (rigidity, t) >= self.plan)

    def failed(self, error: Exception, conditions: Iterable[str]) -> None:
        """Learn from a trace that failed."""
        self.failures += 1
        self.numbers |= needed(error)
        self.conditions.update(dict.fromkeys(conditions))
        if is_about_values(error):  # of the floats among the options, where it is not of the primals
            self.plan = max(self.plan, Plan(1, self.plan.trust))


def like(others: Collection[Signature]) -> Signature:
    """Return a signature that begins where others of the same reference have got to."""
    options = {s for other in others for s in other.numbers if s.startswith("o")}
    return Signature(max((other.plan for other in others), default=Plan()), numbers=frozenset(options))
