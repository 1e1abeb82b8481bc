"""The JAX oracle: a primal in JAX's own idiom, differentiated by JAX, evaluated by NumPy or XLA.

A trace with symbolic dimensions, and symbolic integers among the options, serves every example that meets the
conditions under which it was traced (`oracles.jaxpr.dimensions`); where that fails, only dimensions that have
been constant so far are given as numbers, then all. What NumPy cannot express goes to XLA, per shape.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from oracles.jaxpr.dimensions import Example, Pattern, Trust, fitting, is_symbol, needed, ties
from oracles.jaxpr.options import Options, split
from oracles.jaxpr.program import Program, translate
from oracles.jaxpr.shaker import shaker
from oracles.jaxpr.trace import Executables, Trace, compile_xla, trace
from oracles.jaxpr.writer import UnsupportedPrimitive
from oracles.rule import Array, Cotangents, Opaque, Primals, Pullback, Rule, Shake, is_differentiable, outputs

SYMBOLIC_FAILURES = 12  # per signature, before only concrete shapes are traced
KEPT = 64  # programs per signature, and executables per oracle


def jax_vjp(
    f: Callable[..., Any],
    *,
    name: str = "jax",
    through: str = "numpy",
    options: Mapping[str, Any] | None = None,
) -> Rule:
    """Lift a primal written in JAX into a Rule whose derivative is JAX's own.

    Args:
        f: ``f(**primals, **options)`` returns an array or a tuple of arrays. It must be traceable: what depends on
            the values of its primals is written with ``jnp.where`` or ``jax.lax.cond``.
        name: what reports call the oracle.
        through: "numpy" traces once for many dimensions and evaluates with NumPy, "xla" compiles per shape.
        options: configuration; what was traced for other values of its integers serves here too.

    The arithmetic is that of the primals' dtypes (JAX's 64-bit mode is entered locally), and results are
    fresh arrays. ``rule.evaluate`` counts its ``traces`` and ``compilations``.
    """
    if through not in ("numpy", "xla"):
        raise ValueError(f'through: expected "numpy" or "xla", got {through!r}')
    return _rule(f, options or {}, name, through == "xla", {})


def jax_family(f: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Rule]:
    """Return the function of options that lifts a primal by `jax_vjp`; what it has traced serves all its rules."""
    learnt: dict[Any, _Signature] = {}
    return lambda options: _rule(f, options, "jax", False, learnt)


def _rule(
    f: Callable[..., Any], options: Mapping[str, Any], name: str, through_xla: bool, learnt: dict[Any, _Signature]
) -> Rule:
    oracle = _Oracle(f, split(options), name, through_xla, learnt)
    reference = partial(f, **options) if options else f
    return Rule(oracle, name, None if through_xla else oracle.perturbed, reference, "jax")


class _Translated:
    """NumPy programs of one trace; the shaken ones are written when first asked for."""

    def __init__(self, traced: Trace, pattern: Pattern, conditions: Sequence[str]) -> None:
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
        self, dims: Sequence[int], arrays: Sequence[Array], deltas: Sequence[Array], shake: Shake
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
class _Signature:
    """What has been learnt about primals of given names, ranks and dtypes, and options of a given form.

    Attributes:
        plan: the least cautious that has led to a trace: how rigid a pattern, and what JAX was told.
        conditions: of traces that failed: what is equal to what.
        numbers: symbols whose numbers traces have needed.
        constant: dimensions as they have been in all examples seen, "" where they differed.
        failures: of symbolic traces.
        programs: from symbolic traces, the latest first.
        concrete: for single shapes, the least recently used first.
        opaque: the primitive that NumPy cannot express, if there is one.
    """

    plan: tuple[int, Trust] = (0, Trust.NOTHING)
    conditions: dict[str, None] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    constant: tuple[int | str, ...] = ()
    failures: int = 0
    programs: deque[_Translated] = field(default_factory=lambda: deque(maxlen=KEPT))
    concrete: OrderedDict[tuple[int, ...], _Translated] = field(default_factory=OrderedDict)
    opaque: str = ""

    def find(self, dims: tuple[int, ...]) -> _Translated | None:
        """Return a program that serves these dimensions, if there is one."""
        for program in self.programs:
            if program.fits(dims):
                return program
        if dims in self.concrete:
            self.concrete.move_to_end(dims)
        return self.concrete.get(dims)

    def attempts(self, dims: tuple[int, ...], n_arrays: int) -> Iterator[tuple[Pattern, Trust]]:
        """Learn from an example; yield what is now worth a symbolic trace, the most general first.

        The first ``n_arrays`` dimensions are of arrays, the others come from options.
        """
        self.constant = tuple(d if d == c else "" for d, c in zip(dims, self.constant or dims, strict=True))
        tried: set[tuple[Pattern, Trust]] = set()
        while self.failures < SYMBOLIC_FAILURES:
            for plan, pattern in self._patterns(dims, n_arrays):
                if pattern != dims and (pattern, plan[1]) not in tried:
                    break
            else:
                return
            tried.add((pattern, plan[1]))
            self.plan = plan
            yield pattern, plan[1]

    def _patterns(self, dims: tuple[int, ...], n_arrays: int) -> Iterator[tuple[tuple[int, Trust], Pattern]]:
        """Yield the patterns for these dimensions with the plans that they belong to."""
        names = [f"s{i}" if i < n_arrays else f"o{i - n_arrays}" for i in range(len(dims))]
        values = dict(zip(names, dims, strict=True))
        fixed = {s for s, d in values.items() if not d} | self.numbers
        tied = {s: e for s, e in ties(self.conditions, values).items() if not fixed & {s, e.partition("*")[2], e}}
        free = tuple(values[s] if s in fixed else tied.get(s, s) for s in names)
        rigid = free[:n_arrays] + dims[n_arrays:]
        steady = tuple(s if c == "" else c for s, c in zip(rigid, self.constant, strict=True))
        for i, pattern in enumerate((free, rigid, steady)):
            yield from (((i, trust), pattern) for trust in Trust if (i, trust) >= self.plan)

    def failed(self, error: Exception, conditions: Iterable[str]) -> None:
        """Learn from a trace that failed."""
        self.failures += 1
        self.numbers |= needed(error)
        self.conditions.update(dict.fromkeys(conditions))


def _like(others: Collection[_Signature]) -> _Signature:
    """Return a signature that begins where others of the same reference have got to."""
    options = {s for other in others for s in other.numbers if s.startswith("o")}
    return _Signature(max((other.plan for other in others), default=(0, Trust.NOTHING)), numbers=frozenset(options))


class _Oracle:
    """Evaluates one primal and its VJP; called with primals it is the Rule's ``evaluate``."""

    def __init__(
        self, f: Callable[..., Any], options: Options, name: str, through_xla: bool, learnt: dict[Any, _Signature]
    ) -> None:
        self.f, self.options, self.name, self.through_xla = f, options, name, through_xla
        self.traces = self.compilations = 0
        self.opaque = ""
        self._signatures = learnt
        self._executables: OrderedDict[Any, Executables] = OrderedDict()

    def __call__(self, **primals: Array) -> tuple[Any, Pullback]:
        arrays = tuple(primals.values())
        dims = (*[d for a in arrays for d in a.shape], *self.options.sizes)
        program = self._program(primals, arrays, dims)
        if program is None:
            return self._through_xla(primals, arrays)
        with np.errstate(all="ignore"):
            results = program.forward(dims, *arrays)
        ys, residuals = results[: program.traced.width], results[program.traced.width :]
        forms = [(y.shape, y.dtype) for y in ys]

        def pullback(delta: Any) -> Cotangents:
            deltas = _checked(delta, forms, self.name)
            with np.errstate(all="ignore"):
                return _named(primals, program.pull(dims, *residuals, *deltas))

        return (ys if program.traced.is_tuple else ys[0]), pullback

    def perturbed(self, primals: Primals, delta: Any, shake: Shake) -> tuple[tuple[Array, ...], Cotangents]:
        """Evaluate outputs and cotangents with every operand of every rounding operation shaken.

        Raises:
            Opaque: if the program runs in XLA.
        """
        arrays = tuple(primals.values())
        dims = (*[d for a in arrays for d in a.shape], *self.options.sizes)
        program = self._program(primals, arrays, dims)
        if program is None:
            raise Opaque(f"{self.name}: {self.opaque!r} runs in XLA, where single operations cannot be shaken")
        deltas = [np.asarray(d) for d in outputs(delta) if is_differentiable(d)]
        with np.errstate(all="ignore"):
            ys, cotangents = program.shaken(dims, arrays, deltas, shake)
        return ys, _named(primals, cotangents)

    def _program(self, primals: Primals, arrays: Sequence[Array], dims: tuple[int, ...]) -> _Translated | None:
        """Return a program that serves these primals; None where only XLA can."""
        if self.through_xla:
            return None
        key: Any = (self.options.form, *primals, *[(a.ndim, a.dtype) for a in arrays])
        if 0 in dims:
            key = (key, *[d == 0 for d in dims])
        signature = self._signatures.get(key)
        if signature is None:
            signature = self._signatures[key] = _like(self._signatures.values())
        program = signature.find(dims)
        if program is not None:
            return program
        self.opaque = signature.opaque
        return None if signature.opaque else self._learn(signature, primals, dims)

    def _learn(self, signature: _Signature, primals: Primals, dims: tuple[int, ...]) -> _Translated | None:
        try:
            for pattern, trust in signature.attempts(dims, len(dims) - len(self.options.sizes)):
                example = Example({s: d for s, d in zip(pattern, dims, strict=True) if is_symbol(s)}, trust)
                try:
                    program = self._translated(primals, pattern, example)
                except UnsupportedPrimitive:
                    raise
                except Exception as error:  # whatever it was: these dimensions do not trace symbolically
                    signature.failed(error, example.conditions)
                    continue
                signature.programs.appendleft(program)
                return program
            program = signature.concrete[dims] = self._translated(primals, dims, Example({}, Trust.NOTHING))
        except UnsupportedPrimitive as primitive:
            signature.opaque = self.opaque = str(primitive)
            return None
        if len(signature.concrete) > KEPT:
            signature.concrete.popitem(last=False)
        return program

    def _translated(self, primals: Primals, pattern: Pattern, example: Example) -> _Translated:
        self.traces += 1
        traced = trace(self.f, primals, self.options, pattern, example)
        return _Translated(traced, pattern, tuple(example.conditions))

    def _through_xla(self, primals: Primals, arrays: Sequence[Array]) -> tuple[Any, Pullback]:
        key: Any = tuple((name, a.shape, a.dtype) for name, a in primals.items())
        if key not in self._executables:
            self._executables[key] = compile_xla(self.f, primals, self.options, self._count_compilation)
            if len(self._executables) > KEPT:
                self._executables.popitem(last=False)
        executables = self._executables[key]
        ys = tuple(executables.forward(arrays))
        forms = [(y.shape, y.dtype) for y in ys]

        def pullback(delta: Any) -> Cotangents:
            return _named(primals, executables.pull(arrays, _checked(delta, forms, self.name)))

        return (ys if executables.is_tuple else ys[0]), pullback

    def _count_compilation(self) -> None:
        self.compilations += 1


def _named(primals: Primals, cotangents: Sequence[Array]) -> Cotangents:
    names = [name for name, a in primals.items() if a.dtype.kind == "f" or is_differentiable(a)]
    return dict(zip(names, cotangents, strict=True))


def _checked(delta: Any, forms: Sequence[tuple[tuple[int, ...], np.dtype[Any]]], name: str) -> list[Array]:
    """Return the cotangents of the floating outputs, in the outputs' dtypes."""
    deltas = outputs(delta)
    if [np.shape(d) for d in deltas] != [shape for shape, _ in forms]:
        came, expected = [np.shape(d) for d in deltas], [shape for shape, _ in forms]
        raise ValueError(f"{name}: delta: expected shapes {expected} like the output, got {came}")
    return [
        np.asarray(d, dtype)
        for d, (_, dtype) in zip(deltas, forms, strict=True)
        if dtype.kind == "f" or dtype.name == "bfloat16"
    ]
