"""The JAX oracle: a primal in JAX's own idiom, differentiated by JAX, evaluated by NumPy or XLA.

Which dimensions of the primals are tied is nowhere declared, so it is learnt: a trace with every dimension
free is tried first, then with only those dimensions tied that were equal in all examples seen, down to the
concrete shapes. A program serves every example whose dimensions fit its pattern. What NumPy cannot express
goes to XLA, per shape.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oracles.jaxpr.program import Program, translate
from oracles.jaxpr.shaker import shaker
from oracles.jaxpr.trace import Executables, Pattern, Trace, compile_xla, equality_pattern, fitting, meet, trace
from oracles.jaxpr.writer import UnsupportedPrimitive
from oracles.rule import Array, Cotangents, Opaque, Primals, Pullback, Rule, Shake, is_differentiable, outputs

SYMBOLIC_TRACES = 12  # attempts per signature before only concrete shapes are traced
KEPT = 64  # concrete programs per signature, and executables per oracle


def jax_vjp(f: Callable[..., Any], *, name: str = "jax", through: str = "numpy") -> Rule:
    """Lift a primal written in JAX into a Rule whose derivative is JAX's own.

    Args:
        f: ``f(**primals)`` returns an array or a tuple of arrays. It must be traceable: what depends on the
        values
            of its primals is written with ``jnp.where`` or ``jax.lax.cond``.
        name: what reports call the oracle. through: "numpy" traces once per pattern of dimensions and
        evaluates with NumPy, "xla" compiles per shape.

    The arithmetic is that of the primals' dtypes (JAX's 64-bit mode is entered locally), and results are
    fresh arrays. ``rule.evaluate`` counts its ``traces`` and ``compilations``.
    """
    if through not in ("numpy", "xla"):
        raise ValueError(f'through: expected "numpy" or "xla", got {through!r}')
    oracle = _Oracle(f, name, through == "xla")
    return Rule(oracle, name, None if through == "xla" else oracle.perturbed, f, "jax")


class _Translated:
    """NumPy programs for one pattern of dimensions; the shaken one is written when first asked for."""

    def __init__(self, traced: Trace, pattern: Pattern) -> None:
        self.traced = traced
        self.fits = fitting(pattern)
        self.forward = translate(traced.forward).run
        self.pull = translate(traced.vjp, keep=slice(traced.width, None)).run
        self._noisy: Program | None = None

    def shaken(self, arrays: Sequence[Array], shake: Shake) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Return outputs and cotangents of a shaken run."""
        if self._noisy is None:
            self._noisy = translate(self.traced.vjp, noisy=True)
        results = self._noisy.run(*arrays, shaker(shake))
        return results[: self.traced.width], results[self.traced.width :]


@dataclass
class _Signature:
    """What has been learnt about primals of given names, ranks and dtypes.

    Attributes:
        tied: the meet of the equality patterns of all examples seen.
        constant: the meet of their dimensions themselves.
        tried: patterns traced symbolically so far, with or without success.
        programs: those that succeeded.
        concrete: programs for single shapes, the least recently used first.
        opaque: the primitive that NumPy cannot express, if there is one.
    """

    tied: Pattern | None = None
    constant: Pattern | None = None
    tried: set[Pattern] = field(default_factory=set)
    programs: list[_Translated] = field(default_factory=list)
    concrete: OrderedDict[Pattern, _Translated] = field(default_factory=OrderedDict)
    opaque: str = ""

    def candidates(self, dims: tuple[int, ...]) -> list[Pattern]:
        """Learn from an example; return the patterns now worth a symbolic trace, the most general first."""
        own = equality_pattern(dims)
        self.tied = meet(self.tied or own, own)
        self.constant = meet(self.constant or dims, dims)
        free = tuple(f"s{i}" if d else 0 for i, d in enumerate(dims))
        patterns = dict.fromkeys((free, self.tied, meet(own, own), self.constant))
        new = [p for p in patterns if p not in self.tried and p != dims]
        return new[: SYMBOLIC_TRACES - len(self.tried)]


class _Oracle:
    """Evaluates one primal and its VJP; called with primals it is the Rule's ``evaluate``."""

    def __init__(self, f: Callable[..., Any], name: str, through_xla: bool) -> None:
        self.f, self.name, self.through_xla = f, name, through_xla
        self.traces = self.compilations = 0
        self.opaque = ""
        self._signatures: dict[Any, _Signature] = {}
        self._executables: OrderedDict[Any, Executables] = OrderedDict()

    def __call__(self, **primals: Array) -> tuple[Any, Pullback]:
        arrays = tuple(primals.values())
        program = self._program(primals, arrays)
        if program is None:
            return self._through_xla(primals, arrays)
        with np.errstate(all="ignore"):
            ys = program.forward(*arrays)

        def pullback(delta: Any) -> Cotangents:
            deltas = _checked(delta, ys, self.name)
            with np.errstate(all="ignore"):
                return _named(primals, program.pull(*arrays, *deltas))

        return (ys if program.traced.is_tuple else ys[0]), pullback

    def perturbed(self, primals: Primals, delta: Any, shake: Shake) -> tuple[tuple[Array, ...], Cotangents]:
        """Evaluate outputs and cotangents with every operand of every rounding operation shaken.

        Raises:
            Opaque: if the program runs in XLA.
        """
        arrays = tuple(primals.values())
        program = self._program(primals, arrays)
        if program is None:
            raise Opaque(f"{self.name}: {self.opaque!r} runs in XLA, where single operations cannot be shaken")
        deltas = [np.asarray(d) for d in outputs(delta) if is_differentiable(d)]
        with np.errstate(all="ignore"):
            ys, cotangents = program.shaken((*arrays, *deltas), shake)
        return ys, _named(primals, cotangents)

    def _program(self, primals: Primals, arrays: Sequence[Array]) -> _Translated | None:
        """Return a program that serves these primals; None where only XLA can."""
        if self.through_xla:
            return None
        dims = tuple([d for a in arrays for d in a.shape])
        key: Any = (*primals, *[(a.ndim, a.dtype) for a in arrays])
        if 0 in dims:
            key = (key, *[d == 0 for d in dims])
        signature = self._signatures.get(key)
        if signature is None:
            signature = self._signatures[key] = _Signature()
        for program in signature.programs:
            if program.fits(dims):
                return program
        if dims in signature.concrete:
            signature.concrete.move_to_end(dims)
            return signature.concrete[dims]
        return None if signature.opaque else self._learn(signature, primals, dims)

    def _learn(self, signature: _Signature, primals: Primals, dims: tuple[int, ...]) -> _Translated | None:
        try:
            for pattern in signature.candidates(dims):
                signature.tried.add(pattern)
                try:
                    program = self._translated(primals, pattern)
                except UnsupportedPrimitive:
                    raise
                except Exception:  # whatever it was: these dimensions do not trace symbolically
                    continue
                signature.programs.append(program)
                return program
            program = signature.concrete[dims] = self._translated(primals, dims)
        except UnsupportedPrimitive as primitive:
            signature.opaque = self.opaque = str(primitive)
            return None
        if len(signature.concrete) > KEPT:
            signature.concrete.popitem(last=False)
        return program

    def _translated(self, primals: Primals, pattern: Pattern) -> _Translated:
        self.traces += 1
        return _Translated(trace(self.f, primals, pattern), pattern)

    def _through_xla(self, primals: Primals, arrays: Sequence[Array]) -> tuple[Any, Pullback]:
        key: Any = tuple((name, a.shape, a.dtype) for name, a in primals.items())
        if key not in self._executables:
            self._executables[key] = compile_xla(self.f, primals, self._count_compilation)
            if len(self._executables) > KEPT:
                self._executables.popitem(last=False)
        executables = self._executables[key]
        ys = tuple(executables.forward(arrays))

        def pullback(delta: Any) -> Cotangents:
            return _named(primals, executables.vjp(arrays, _checked(delta, ys, self.name))[1])

        return (ys if executables.is_tuple else ys[0]), pullback

    def _count_compilation(self) -> None:
        self.compilations += 1


def _named(primals: Primals, cotangents: Sequence[Array]) -> Cotangents:
    names = [name for name, a in primals.items() if a.dtype.kind == "f" or is_differentiable(a)]
    return dict(zip(names, cotangents, strict=True))


def _checked(delta: Any, ys: Sequence[Array], name: str) -> list[Array]:
    """Return the cotangents of the floating outputs, in the outputs' dtypes."""
    deltas = outputs(delta)
    if [np.shape(d) for d in deltas] != [y.shape for y in ys]:
        came, expected = ([np.shape(a) for a in part] for part in (deltas, ys))
        raise ValueError(f"{name}: delta: expected shapes {expected} like the output, got {came}")
    return [
        np.asarray(d, y.dtype) for d, y in zip(deltas, ys, strict=True) if y.dtype.kind == "f" or is_differentiable(y)
    ]
