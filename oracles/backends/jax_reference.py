"""The JAX oracle: a primal in JAX's own idiom, differentiated by JAX, evaluated by NumPy or XLA.

A trace with symbolic dimensions, and symbolic integers among the options, serves every example that meets the
conditions under which it was traced (`oracles.jaxpr.dimensions`); where that fails, only dimensions that have
been constant so far are given as numbers, then all. What NumPy cannot express goes to XLA, per shape.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from oracles.jaxpr.dimensions import Example
from oracles.jaxpr.learning import KEPT, Experience, Signature, Translated
from oracles.jaxpr.options import split
from oracles.jaxpr.patterns import Pattern
from oracles.jaxpr.trace import Executables, compile_xla, trace
from oracles.jaxpr.writer import UnsupportedPrimitive
from oracles.rule import (
    Array,
    Cotangents,
    NotPerturbable,
    Perturbation,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
)


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
    return _rule(f, options or {}, name, through == "xla", Experience())


def jax_family(f: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Rule]:
    """Return the function of options that lifts a primal by `jax_vjp`; what it has traced serves all its rules."""
    experience = Experience()
    return lambda options: _rule(f, options, "jax", False, experience)


def _rule(
    f: Callable[..., Any], options: Mapping[str, Any], name: str, through_xla: bool, experience: Experience
) -> Rule:
    oracle = _Oracle(f, options, name, through_xla, experience)
    reference = partial(f, **options) if options else f
    return Rule(oracle, name, None if through_xla else oracle.evaluate_perturbed, reference, "jax")


class _Oracle:
    """Evaluates one primal and its VJP; called with primals it is the Rule's ``evaluate``."""

    def __init__(
        self,
        f: Callable[..., Any],
        options: Mapping[str, Any],
        name: str,
        through_xla: bool,
        experience: Experience,
    ) -> None:
        self.f, self.name, self.through_xla = f, name, through_xla
        self.traces = self.compilations = 0
        self.opaque = ""
        self._settings, self._options = options, split(options)
        self._numbers = (*self._options.sizes, *self._options.lengths, *self._options.floats)
        self._floats = [np.asarray(number) for number in self._options.floats]
        self._experience = experience
        self._executables: OrderedDict[Any, Executables] = OrderedDict()

    def __call__(self, **primals: Array) -> tuple[Any, Pullback]:
        arrays = tuple(primals.values())
        dims = (*[d for a in arrays for d in a.shape], *self._numbers)
        program = self._program(primals, arrays, dims)
        if program is None:
            return self._through_xla(primals, arrays)
        with np.errstate(all="ignore"):
            results = program.forward(dims, *arrays, *self._floats)
        ys, residuals = results[: program.traced.width], results[program.traced.width :]
        forms = [(y.shape, y.dtype) for y in ys]

        def pullback(delta: Any) -> Cotangents:
            deltas = _checked(delta, forms, self.name)
            with np.errstate(all="ignore"):
                return _named(primals, program.pull(dims, *residuals, *deltas))

        return (ys if program.traced.is_tuple else ys[0]), pullback

    def evaluate_perturbed(
        self, primals: Primals, delta: Any, shake: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        """Evaluate outputs and cotangents with every operand of every rounding operation shaken.

        Raises:
            NotPerturbable: if the program runs in XLA.
        """
        arrays = tuple(primals.values())
        dims = (*[d for a in arrays for d in a.shape], *self._numbers)
        program = self._program(primals, arrays, dims)
        if program is None:
            raise NotPerturbable(f"{self.name}: {self.opaque!r} runs in XLA, where single operations cannot be shaken")
        deltas = [np.asarray(d) for d in as_tuple(delta) if is_differentiable(d)]
        with np.errstate(all="ignore"):
            ys, cotangents = program.shaken(dims, (*arrays, *self._floats), deltas, shake)
        return ys, _named(primals, cotangents)

    def _program(self, primals: Primals, arrays: Sequence[Array], dims: tuple[Any, ...]) -> Translated | None:
        """Return a program that serves these primals; None where only XLA can."""
        if self.through_xla:
            return None
        key: Any = (self._options.form, *primals, *[(a.ndim, a.dtype) for a in arrays])
        signature = general = self._experience.signatures.setdefault(key, Signature())
        if any(0 in a.shape for a in arrays):
            empty = key, *[d == 0 for a in arrays for d in a.shape]
            signature = self._experience.signatures.setdefault(empty, Signature())
        program = signature.find(dims)
        if program is None and signature is not general:
            program = general.find_for_empty(dims, (*arrays, *self._floats))
        if program is not None:
            return program
        self.opaque = signature.opaque
        return None if signature.opaque else self._learn(signature, primals, dims)

    def _learn(self, signature: Signature, primals: Primals, dims: tuple[Any, ...]) -> Translated | None:
        places = [(name, axis) for name, a in primals.items() for axis in range(a.ndim)]
        n_arrays = len(places)
        places += [("", i) for i in range(len(self._numbers))]
        try:
            for pattern, example in self._experience.attempts(signature, dims, places, n_arrays):
                try:
                    program = self._translated(primals, pattern, example)
                except UnsupportedPrimitive:
                    raise
                except Exception as error:  # whatever it was: these dimensions do not trace symbolically
                    self._experience.failed(signature, example, error)
                    continue
                self._experience.succeeded(example)
                signature.programs.appendleft(program)
                return program
            program = self._translated(primals, dims, Example({}, candid=False))
        except UnsupportedPrimitive as primitive:
            signature.opaque = self.opaque = str(primitive)
            return None
        signature.keep(dims, program)
        return program

    def _translated(self, primals: Primals, pattern: Pattern, example: Example) -> Translated:
        self.traces += 1
        traced = trace(self.f, primals, self._options, pattern, example)
        return Translated(traced, pattern, example)

    def _through_xla(self, primals: Primals, arrays: Sequence[Array]) -> tuple[Any, Pullback]:
        key: Any = tuple((name, a.shape, a.dtype) for name, a in primals.items())
        if key not in self._executables:
            self._executables[key] = compile_xla(self.f, primals, self._settings, self._count_compilation)
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
    deltas = as_tuple(delta)
    if [np.shape(d) for d in deltas] != [shape for shape, _ in forms]:
        came, expected = [np.shape(d) for d in deltas], [shape for shape, _ in forms]
        raise ValueError(f"{name}: delta: expected shapes {expected} like the output, got {came}")
    return [
        np.asarray(d, dtype)
        for d, (_, dtype) in zip(deltas, forms, strict=True)
        if dtype.kind == "f" or dtype.name == "bfloat16"
    ]
