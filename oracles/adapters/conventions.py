"""Conventions that a subject declares, such as a gradient averaged over the rows, so that they count as no bugs.

A declared convention is checked: the subject must follow it, and the report names the declaration that would fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import permutations
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from oracles.adapters.declared_derivatives import Linear, OfDerivative, with_outputs, with_own_deltas, with_own_outputs
from oracles.adapters.gauges import GAUGES, Signs, named_by_position
from oracles.backends.arrays import copied
from oracles.backends.straight_through import StraightThrough, straight_through
from oracles.constants import CONFIDENCE, FACTOR_STEP, KINK_ROUNDINGS, LAYOUT_AXES, NORMWISE_FACTOR, STEP_SHARE
from oracles.evaluations import same_values
from oracles.notes import note
from oracles.numerics import Numerics, is_coarser, stores_of, unit_roundoff
from oracles.outputs import OUTPUT, core_names, like, names_of
from oracles.rule import (
    Answer,
    Array,
    Convention,
    Cotangent,
    Cotangents,
    Delta,
    Derived,
    Enclosure,
    Evaluate,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
    is_real,
    with_dtype,
)
from oracles.structure import wrapped
from oracles.user_code import attempt

Scale: TypeAlias = float | Callable[..., float]
# "NCHW->NHWC": the order of the axes in the reference's array, and in the subject's; 1 is an axis of length one. Or two
# functions, from the reference's array to the subject's and back.
Layout: TypeAlias = str | tuple[Callable[[Array], Array], Callable[[Array], Array]]
Fused: TypeAlias = Callable[[Array], Array]
Accuracy: TypeAlias = Literal["entrywise", "normwise"]
Gradient: TypeAlias = Literal["true", "straight_through"]

# What the name of an imaginary part ends with, see `oracles.structure`.
IMAGINARY = ".imag"
REST = "..."  # any further axes of a layout


def declared(
    rule: Rule,
    *,
    scale: Mapping[str, Scale] | None = None,
    layout: Mapping[str, Layout] | None = None,
    fused: Mapping[str, Fused] | None = None,
    kinks: Mapping[str, Mapping[float, float]] | None = None,
    symmetric: str | Sequence[str] = (),
    gauge: str | Mapping[str, str] | None = None,
    accuracy: Accuracy = "entrywise",
    conjugate: bool = False,
    writes: str | Sequence[str] = (),
    output_dtype: str | None = None,
    solved_to: float = 0.0,
    gradient: Gradient = "true",
    steps: str | Sequence[str] = (),
    numerics: Numerics | None = None,
) -> Rule:
    """Declare the conventions in which a subject differs from its references.

    Points and cotangents are those of the references; they are converted to the subject's convention and back. A
    declaration that does not fit is refused, and the report names one that does.

    Args:
        rule: the subject.
        scale: ``{primal: factor}``: its cotangent is the gradient times the factor, a number or a function
            ``f(**primals)``: ``{"W": lambda z, **_: 1 / len(z)}`` for a dW averaged over the rows.
        layout: ``{primal or "output": "NCHW->NHWC"}``: the order of the axes in the reference's array and in the
            subject's. 1 is an axis of length one ("n->1n"), ... stands for any others. Or two functions, from the
            reference's array to the subject's and back.
        fused: ``{primal: f}``: the subject takes f of the primal, but returns the gradient of the primal itself, as a
            loss of probabilities that returns the gradient of the logits: ``{"a": softmax}``.
        kinks: ``{primal: {kink: derivative}}`` of a function entry by entry: ``{"z": {0.0: 0.5}}``.
        symmetric: primals that are symmetric matrices (in their last two axes). A gradient Ā counts as ⟨Ā, S⟩ for
            symmetric S alone, so (Ā + Āᵀ)/2 is compared: the entries of one triangle may be returned for both.
        gauge: outputs that the problem leaves open, ``{"output[1]": "sign"}`` for eigenvectors: each column may have
            either sign ("sign of rows": each row, as in Vᵀ of a singular value decomposition). Columns or rows of one
            index have one sign in all these outputs. They, and the cotangents, are compared in the subject's signs.
        accuracy: "normwise" where the errors of one array have one size, whatever the size of an entry, as in
            convolutions by FFT and by Winograd: every entry has `NORMWISE_FACTOR` times the array's largest tolerance.
        conjugate: whether its complex cotangents, those that it takes and those that it returns, are the conjugates of
            torch's ∂L/∂Re z + i ∂L/∂Im z, as JAX's are.
        writes: the arguments that the subject writes into on purpose: primals, and "delta", or "delta[0]" of several.
            It is called on copies of them, and its forward again before a second pullback, which would see what the
            first one wrote; a note says so. A write into any other argument is refused.
        output_dtype: the dtype of floating outputs where it is another one than that of the primals: "float32" for a
            loss of bfloat16 logits. ``delta`` has it too. Outputs of another dtype are refused.
        solved_to: the relative tolerance to which an iterative solver inside stops. Every entry may be off by so much
            of the array's largest entry, times `CONFIDENCE`, since the error of a gradient is a multiple of it.
        gradient: "straight_through" where cotangents pass through steps as if each were the identity. A step is an
            operation of the reference whose derivative is zero: a rounding, a sign, and floats made of integers or
            truth values, in the shape of the floats that those were made of. The references are differentiated so.
        steps: with ``gradient``, what torch or JAX call the steps, such as ("round", "clamp"), instead of all of zero
            derivative. In JAX it may be the name of a function under `jax.jit`.
        numerics: what the subject stores, accumulates and multiplies in, see `oracles.Numerics`.

    Returns:
        The Rule in the references' convention.

    Raises:
        InvalidInput: for an invalid layout, gauge, accuracy or gradient; when evaluated, for names that are no primals;
            when judged, for a point that is not symmetric, or without a reference in which a step could be replaced.
    """
    rule = replace(rule, numerics=numerics or rule.numerics)
    convention = Declaration(rule, dict(scale or {}), dict(layout or {}), dict(fused or {}), dict(kinks or {}))
    convention = _with_freedoms(convention, _names(symmetric), _gauges(gauge), _valid_accuracy(accuracy))
    convention = replace(convention, conjugate=conjugate, writes=_names(writes), output_dtype=output_dtype or "")
    convention = replace(convention, solved_to=_valid_solved_to(solved_to))
    convention = replace(convention, gradient=_valid_gradient(gradient), steps=_names(steps))
    # At once: a layout that cannot be read is an error here.
    conversions = {name: conversion(name, value) for name, value in convention.layout.items()}

    return _in_convention(rule, convention, conversions)


def _in_convention(rule: Rule, convention: Declaration, conversions: Mapping[str, Conversion]) -> Rule:
    """Return a rule whose points and cotangents are converted to the subject's convention and back."""

    def converted(evaluate: Evaluate) -> Evaluate:
        if convention.writes:
            evaluate = Writing(evaluate, convention.writes)
        if convention.output_dtype:
            evaluate = partial(_with_output_dtype, evaluate, convention.output_dtype)
        return partial(_evaluate, evaluate, convention, conversions)

    evaluate = converted(rule.evaluate)
    return replace(
        rule,
        evaluate=evaluate,
        evaluate_perturbed=None,
        call_patterns={name: converted(each) for name, each in rule.call_patterns.items()},
        convention=convention,
        structured=wrapped(rule, evaluate, convention.of_rule),
        derived=_derived(rule, evaluate, convention, conversions),
    )


def _derived(rule: Rule, evaluate: Evaluate, convention: Declaration, conversions: Mapping[str, Conversion]) -> Derived:
    """Return how to make the rules of what a declared rule derives: those of the rule, in the same convention."""
    second, tangent = rule.derivatives.second, rule.derivatives.tangent
    return Derived(
        evaluate,
        second and partial(_second, convention, conversions, second),
        tangent and partial(_tangent, convention, conversions, tangent),
    )


def _second(
    convention: Declaration,
    conversions: Mapping[str, Conversion],
    second: Callable[[tuple[str, ...], tuple[str, ...]], Rule],
    wrt: tuple[str, ...],
    deltas: tuple[str, ...],
) -> Rule:
    """Return the rule of a declared rule's pullback. Its outputs are cotangents, which the convention converts.

    Raises:
        InvalidInput: if the convention says nothing of a second derivative.
    """
    _require_no("order=2", fused=convention.fused, conjugate=convention.conjugate)
    own, rule = second(wrt, deltas), convention.rule
    if convention.output_dtype or any(_is_output(n) for n in conversions):
        own = with_own_deltas(own, rule.evaluate, deltas, partial(_output_maps, conversions))
    layout = {n: value for n, value in convention.layout.items() if not _is_output(n)}
    outputs = core_names(len(wrt))
    writes = (*convention.writes, *(deltas if "delta" in convention.writes else ()))
    made = declared(
        own,
        layout=layout | {y: layout[n] for y, n in zip(outputs, wrt, strict=True) if n in layout},
        symmetric=convention.symmetric,
        writes=writes,
        numerics=rule.numerics,
    )
    made = with_outputs(made, [convention.map_of_gradient(n, deltas) for n in wrt])
    return replace(made, convention=convention.of_pullback())


def _tangent(
    convention: Declaration,
    conversions: Mapping[str, Conversion],
    tangent: Callable[[Mapping[str, str]], Rule],
    tangents: Mapping[str, str],
) -> Rule:
    """Return the rule of a declared rule's directional derivative: tangents are converted as their primals are.

    Raises:
        InvalidInput: if the convention says nothing of a directional derivative.
    """
    _require_no("mode", fused=convention.fused, gauge=convention.gauge)
    own, rule = tangent(tangents), convention.rule
    if any(_is_output(n) for n in conversions):
        own = with_own_outputs(own, rule.evaluate, [*tangents.values()], partial(_output_maps, conversions))
    layout = {n: value for n, value in convention.layout.items() if not _is_output(n)}
    symmetric = (*convention.symmetric, *(tangents[n] for n in convention.symmetric if n in tangents))
    made = declared(
        own,
        layout=layout | {t: layout[n] for n, t in tangents.items() if n in layout},
        symmetric=symmetric,
        writes=[n for n in convention.writes if n.partition("[")[0] != "delta"],
        output_dtype=convention.output_dtype or None,
        numerics=rule.numerics,
    )
    return replace(made, convention=OfDerivative(replace(convention, kinks={}, symmetric=symmetric)))


def _require_no(what: str, **declared_values: object) -> None:
    """Require that nothing is declared which says nothing of a further derivative.

    Raises:
        InvalidInput: if something is.
    """
    named = [name for name, value in declared_values.items() if value]
    if named:
        raise InvalidInput(
            f"{what}: declared({named[0]}=...) says what the cotangents of the subject are, and nothing of its own "
            "second derivative or forward mode.\n"
            f"Fix: leave {named[0]} out where you ask for these: adapt functions that follow no such convention"
        )


def _is_output(name: str) -> bool:
    return re.split(r"[.[]", name)[0] == OUTPUT


def _output_maps(conversions: Mapping[str, Conversion], y: Output) -> list[Linear | None]:
    """Return the conversion of each output's cotangent to the subject's."""
    named = zip(names_of(y), named_by_position(y), strict=True)
    found = [conversions.get(name) or conversions.get(position) for name, (position, _) in named]
    return [None if c is None else Linear(c.to, c.back) for c in found]


@dataclass(frozen=True)
class Freedom:
    """What a problem may leave open, in the arguments of `declared`: symmetry, signs of vectors, conjugates."""

    symmetric: tuple[str, ...] = ()
    gauge: Mapping[str, str] = field(default_factory=dict)
    conjugate: bool = False
    straight_through: bool = False

    def __str__(self) -> str:
        """Return the arguments as code."""
        names = self.symmetric[0] if len(self.symmetric) == 1 else list(self.symmetric)
        arguments = {"symmetric": names if self.symmetric else None, "gauge": self.gauge or None}
        words = [f"{name}={json.dumps(value)}" for name, value in arguments.items() if value is not None]
        words += ["conjugate=True"] if self.conjugate else []
        return ", ".join([*words, *(['gradient="straight_through"'] if self.straight_through else [])])


@dataclass(frozen=True)
class Declaration(Convention):
    """The arguments of `declared`, and what follows from them for the judge."""

    rule: Rule
    scale: Mapping[str, Scale] = field(default_factory=dict)
    layout: Mapping[str, Layout] = field(default_factory=dict)
    fused: Mapping[str, Fused] = field(default_factory=dict)
    kinks: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    symmetric: tuple[str, ...] = ()
    gauge: Mapping[str, str] = field(default_factory=dict)
    accuracy: Accuracy = "entrywise"
    conjugate: bool = False
    writes: tuple[str, ...] = ()
    output_dtype: str = ""
    solved_to: float = 0.0
    gradient: Gradient = "true"
    steps: tuple[str, ...] = ()

    def read_error(self, primals: Primals, delta: Delta, u: float) -> Mapping[str, Array]:
        """Return the bound that the rule itself gives."""
        return self.rule.convention.read_error(primals, delta, u)

    def violations(self, primals: Primals, delta: Delta, cotangents: Cotangents, precision: str) -> Mapping[str, str]:
        """Say, by primal, at which declared kink the subject takes another derivative."""
        result = {}
        for name in self.kinks:
            if not is_real(cotangents.get(name)) or np.shape(cotangents[name]) != np.shape(delta):
                continue
            at, slope = self.at_kinks(name, primals)
            d, actual = np.asarray(delta, np.float64), np.asarray(cotangents[name], np.float64)
            tolerance = KINK_ROUNDINGS * unit_roundoff(precision) * np.abs(slope * d)
            wrong = at & ~(np.abs(actual - slope * d) <= tolerance)  # not ">": a NaN is wrong too
            if np.any(wrong):
                index = tuple(int(i) for i in np.argwhere(wrong)[0])
                derivative = actual[index] / d[index] if d[index] else actual[index]
                result[name] = (
                    f"at {name}{list(index)} = {float(primals[name][index]):g} the declared derivative is "
                    f"{slope[index]:g}, the subject's is {derivative:g}"
                )
        return result

    def adjusted(
        self, primals: Primals, cotangents: Mapping[str, Cotangent], answers: Mapping[str, Mapping[str, Answer]]
    ) -> Mapping[str, Mapping[str, Answer]]:
        """Return the oracles' cotangents as the subject's are: symmetrized, and with its own at declared kinks.

        `violations` has checked those. What certified enclosures know of rounding is widened as tolerances are, and
        enclosures of the derivative of a stopped iteration reach that at the solution.
        """
        result = {oracle: dict(answer) for oracle, answer in answers.items()}
        for name in self.kinks:
            if is_real(cotangents.get(name)) and np.shape(cotangents[name]) == np.shape(primals[name]):
                at, _ = self.at_kinks(name, primals)
                own = np.asarray(cotangents[name], np.float64)
                for answer in result.values():
                    if name in answer:
                        answer[name] = _replaced(answer[name], at, own)
        for answer in result.values():
            answer.update({n: _symmetrized_answer(answer[n]) for n in self.symmetric if n in answer})
            answer.update({n: self._widened(n, a) for n, a in answer.items()})
            if self.solved_to:
                answer.update({n: self._at_solution(answer[n]) for n in cotangents if n in answer and n in primals})
        return result

    def _at_solution(self, answer: Answer) -> Answer:
        """Return an enclosure of the derivative of a stopped iteration as one of the derivative at the solution.

        An implicit gradient is that at the solution. Where a step leaves a share ρ of the error, k = log τ / log ρ of
        them leave ρ^k of the value's, and about k times as much of the derivative's: d(ρ^k)/dρ = k ρ^(k−1).
        """
        if not isinstance(answer, Enclosure):
            return answer  # a reference's
        steps = max(1.0, np.log(self.solved_to) / np.log(STEP_SHARE))
        lag = CONFIDENCE * steps * self.solved_to
        largest = np.max(np.abs(answer.mid), initial=0.0, where=np.isfinite(answer.mid))
        return replace(answer, radius=answer.radius + lag * largest)

    def _widened(self, name: str, answer: Answer) -> Answer:
        """Return a certified enclosure with the bound on rounding that the convention gives; else the answer."""
        if not isinstance(answer, Enclosure) or answer.rounding is None:
            return answer
        return replace(answer, rounding=self.tolerances({name: answer.rounding}, {name: answer.mid})[name])

    def tolerances(self, tolerances: Mapping[str, Array], values: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the tolerances of symmetrized cotangents, those by norm, and those of a solver."""
        result = dict(self.rule.convention.tolerances(tolerances, values))
        if self.solved_to:
            share = CONFIDENCE * self.solved_to
            largest = {n: np.max(np.abs(v), initial=0.0, where=np.isfinite(v)) for n, v in values.items()}
            result = {n: t + share * largest[n] for n, t in result.items()}
        # |(e + eᵀ)/2| is at most (|e| + |eᵀ|)/2.
        result |= {n: symmetrized(result[n]) for n in self.symmetric if n in result}
        return {n: _by_norm(t) for n, t in result.items()} if self.accuracy == "normwise" else result

    def nearest_point(self, primals: Primals) -> Primals:
        """Return the point with symmetric matrices where they are declared."""
        return {n: _symmetric_point(a) if n in self.symmetric else a for n, a in primals.items()}

    def aligned(self, subject: Rule, oracles: tuple[Rule, ...], primals: Primals) -> tuple[Rule, tuple[Rule, ...]]:
        """Return subject and oracles in the signs that the subject has at the point.

        Raises:
            InvalidInput: if a primal is not symmetric there, a gauge belongs to no output, or no reference is there
                whose steps could be replaced.
        """
        _require_symmetric(self.symmetric, primals)
        if self.gradient != "true":
            oracles = _straight_through(oracles, self.steps, primals)
        if not self.gauge:
            return subject, oracles
        y = subject(**primals)[0]
        anchor = dict(named_by_position(y))
        by_name = dict(zip(names_of(y), anchor, strict=True))  # output.eigenvectors is output[1]
        gauge = {by_name.get(n, n): kind for n, kind in self.gauge.items()}
        unknown = [n for n in gauge if n not in anchor]
        if unknown:
            raise InvalidInput(
                f"declared: gauge: expected names of the outputs {', '.join(by_name)}, got {', '.join(unknown)}.\n"
                f"Fix:    gauge={{{list(by_name)[-1]!r}: 'sign'}}"
            )
        signs = Signs({n: np.array(anchor[n]) for n in gauge}, gauge)
        own = signs.aligned(subject)
        own = replace(own, derived=signs.derived(subject, own.evaluate))
        # Finite differences are those of the subject's own primal, whose signs must not change between two steps.
        return own, tuple(
            o.adapt(own) if o.adapt and isinstance(o.implementation, Rule) else signs.aligned(o) for o in oracles
        )

    def of_pullback(self) -> Convention:
        """Return the convention of the pullback: symmetric primals, and the accuracy. A step has no derivative."""
        return OfDerivative(replace(self, kinks={}))

    def pulled_oracle(self, pulled: Rule, wrt: tuple[str, ...]) -> Rule:
        """Return an oracle's pullback with symmetrized gradients of symmetric primals."""
        return with_outputs(pulled, [_symmetrizing if n in self.symmetric else None for n in wrt])

    def map_of_gradient(self, name: str, deltas: Sequence[str]) -> Callable[[Primals], Linear] | None:
        """Return what gives, at a point of the pullback, the map of the subject's cotangent to the reference's.

        Args:
            name: the primal.
            deltas: the arguments of the pullback that are no primals.
        """
        if name not in self.scale and name not in self.symmetric:
            return None

        def at(arguments: Primals) -> Linear:
            primals = {n: a for n, a in arguments.items() if n not in deltas}
            factor = self._constant_factor(name, primals) if name in self.scale else 1.0

            def divided(array: Array) -> Array:
                scaled = (array / factor).astype(array.dtype) if factor != 1 else array
                return symmetrized(scaled) if name in self.symmetric else scaled

            return Linear(divided, divided)  # symmetric maps: each is its own transpose

        return at

    def _constant_factor(self, name: str, primals: Primals) -> float:
        """Return the factor of a cotangent, which must not depend on the values of the floating primals.

        Raises:
            InvalidInput: if it does: then the subject's second derivative has a term more, which nothing declares.
        """
        scale = self.scale[name]
        if not callable(scale):
            return float(scale)
        rng = np.random.default_rng(0)
        moved = {n: _nearby(a, rng) if is_differentiable(a) else a for n, a in primals.items()}
        factor = float(scale(**primals))
        if float(scale(**moved)) != factor:
            raise InvalidInput(
                f"order=2: declared: scale of {name}: expected a factor of the shapes, got one of the values: its own "
                "derivative is part of the subject's second one.\nFix: leave scale out where you ask for order=2"
            )
        return factor

    def at_kinks(self, name: str, primals: Primals) -> tuple[Array, Array]:
        """Return the mask of entries at a declared kink, and the derivatives declared there."""
        at, slope = np.zeros(primals[name].shape, bool), np.zeros(primals[name].shape)
        for kink, derivative in self.kinks[name].items():
            here = np.asarray(primals[name] == kink)
            at, slope = at | here, np.where(here, derivative, slope)
        return at, slope

    @property
    def declares_nothing(self) -> bool:
        """Whether every argument has its default."""
        return self == Declaration(self.rule)

    def alternatives(
        self, factors: Mapping[str, float], slopes: Mapping[str, float], freedoms: Iterable[Freedom] = ()
    ) -> Iterator[tuple[str, Rule]]:
        """Yield the rules of declarations that differ in one entry, or by a freedom, each with that as text.

        Args:
            factors: the ratio of each cotangent to the oracle's, if it is one number.
            slopes: the derivative that the subject takes at its declared kinks.
            freedoms: what else the problem may leave open.
        """
        if self.conjugate:  # before a factor of -1 for each imaginary part
            yield "conjugate=False", self._but(conjugate=False)
        for name, layout in self.layout.items():
            for other in other_layouts(layout):
                yield f"layout={{{name!r}: {other!r}}}", self._but(layout={**self.layout, name: other})
        for name, factor in factors.items():
            scale = self.scale.get(name, 1.0)
            text = f"{factor:.6g} times that" if callable(scale) else f"{scale * factor:.6g}"
            better = partial(_scaled, scale, factor) if callable(scale) else scale * factor
            yield f"scale={{{name!r}: {text}}}", self._but(scale={**self.scale, name: better})
        for name, slope in slopes.items():
            kinks = dict.fromkeys(self.kinks[name], slope)
            yield f"kinks={{{name!r}: {kinks}}}", self._but(kinks={**self.kinks, name: kinks})
        for freedom in freedoms:
            symmetric, gauge = (*self.symmetric, *freedom.symmetric), {**self.gauge, **freedom.gauge}
            conjugate = self.conjugate != freedom.conjugate
            changes = {"symmetric": tuple(dict.fromkeys(symmetric)), "gauge": gauge, "conjugate": conjugate}
            gradient = "straight_through" if freedom.straight_through else self.gradient
            yield str(replace(freedom, conjugate=conjugate)), self._but(**changes, gradient=gradient)
        if self.gradient != "true":
            yield 'gradient="true"', self._but(gradient="true", steps=())

    def unfused(self, name: str, primals: Primals) -> tuple[Rule, dict[str, Array]]:
        """Return the rule without one fused function, and the point at which to evaluate it then."""
        others = {n: f for n, f in self.fused.items() if n != name}
        return self._but(fused=others), {**primals, name: np.asarray(self.fused[name](primals[name]))}

    def require_primals(self, primals: Primals) -> None:
        """Check the names in the declaration.

        Raises:
            InvalidInput: if one is no primal, or has a scale or kinks but no cotangent.
        """
        for keyword in ("scale", "layout", "fused", "kinks", "symmetric"):
            outputs = keyword == "layout"
            names: Collection[str] = getattr(self, keyword)
            unknown = [n for n in names if n not in primals and not (outputs and re.split(r"[.[]", n)[0] == "output")]
            if unknown:
                raise InvalidInput(
                    f"declared: {keyword}: expected names of the primals {', '.join(primals)}, got {', '.join(unknown)}"
                )
        unknown = [n for n in self.writes if n not in primals and not re.fullmatch(r"delta(\[\d+\])?", n)]
        if unknown:
            raise InvalidInput(
                f"declared: writes: expected some of {', '.join((*primals, 'delta'))}, got {', '.join(unknown)}.\n"
                "Fix:    writes=('delta',)"
            )
        integer = [n for n in (*self.scale, *self.kinks, *self.symmetric) if not is_differentiable(primals[n])]
        if integer:
            raise InvalidInput(f"declared: expected floating primals, got {', '.join(integer)}, which has no cotangent")

    def of_rule(self, rule: Rule) -> Rule:
        """Return another rule with the same declaration: of leaves, whose names the declaration has."""
        return replace(self, rule=rule)._but()

    def _but(self, **changes: Any) -> Rule:
        other = replace(self, **changes)
        return declared(
            self.rule,
            scale=other.scale,
            layout=other.layout,
            fused=other.fused,
            kinks=other.kinks,
            symmetric=other.symmetric,
            gauge=other.gauge,
            accuracy=other.accuracy,
            conjugate=other.conjugate,
            writes=other.writes,
            output_dtype=other.output_dtype,
            solved_to=other.solved_to,
            gradient=other.gradient,
            steps=other.steps,
        )


@dataclass(frozen=True)
class Conversion:
    """How an array is converted from the reference's layout to the subject's, and back."""

    to: Callable[[Array], Array]
    back: Callable[[Array], Array]


def conversion(name: str, layout: object) -> Conversion:
    """Return the conversion that a layout describes.

    Args:
        name: the primal or output, for the messages.
        layout: a `Layout`.

    Raises:
        InvalidInput: if it is neither a pair of functions nor two orders of the same axes.
    """
    if isinstance(layout, tuple) and len(layout) == 2 and all(map(callable, layout)):
        return Conversion(*layout)
    if not isinstance(layout, str) or layout.count("->") != 1:
        raise InvalidInput(
            f"layout of {name}: expected two orders of the same axes, as 'ij->ji', or two functions, got {layout!r}"
        )
    reference, subject = (_axes(side.strip()) for side in layout.split("->"))
    letters = [a for a in reference if a != "1"]
    if sorted(letters) != sorted(a for a in subject if a != "1") or len(set(letters)) != len(letters):
        raise InvalidInput(
            f"layout of {name}: expected each letter once on either side, as 'NCHW->NHWC', got {layout!r}"
        )
    return Conversion(
        partial(_reordered, before=reference, after=subject, name=name),
        partial(_reordered, before=subject, after=reference, name=name),
    )


def _axes(side: str) -> tuple[str, ...]:
    """Split one side of a layout into its letters, 1s and "..."."""
    first, dots, last = side.partition(REST)
    return (*first, *([REST] if dots else []), *last)


def _reordered(array: Array, before: tuple[str, ...], after: tuple[str, ...], name: str) -> Array:
    array = np.asanyarray(array)
    further = array.ndim - len([a for a in before if a != REST])
    if further < 0 or (further and REST not in before):
        raise ValueError(f"layout of {name}: expected axes {''.join(before)}, got an array of shape {array.shape}")
    labels = _labels(before, further)
    if any(a == "1" and n != 1 for a, n in zip(labels, array.shape, strict=True)):
        raise ValueError(f"layout of {name}: expected axes of length one at 1 in {''.join(before)}, got {array.shape}")
    extents = {label: n for label, n in zip(labels, array.shape, strict=True) if label != "1"}
    positions = {label: i for i, label in enumerate(extents)}
    order = _labels(after, further)
    transposed = array.reshape(tuple(extents.values())).transpose([positions[a] for a in order if a != "1"])
    return transposed.reshape([extents.get(label, 1) for label in order])


def _labels(axes: tuple[str, ...], further: int) -> list[str]:
    """Replace "..." by one label for each further axis."""
    return [label for a in axes for label in ([f"{REST}{i}" for i in range(further)] if a == REST else [a])]


def other_layouts(layout: Layout) -> Iterator[str]:
    """Yield the other orders of the same axes, the reference's own order first."""
    if not isinstance(layout, str) or REST in layout:
        return
    reference, subject = (side.strip() for side in layout.split("->"))
    letters = [a for a in subject if a != "1"]
    if len(letters) > LAYOUT_AXES:
        return
    unchanged = tuple(a for a in reference if a != "1")
    for order in dict.fromkeys([unchanged, *permutations(letters)]):
        rest = iter(order)
        other = "".join(a if a == "1" else next(rest) for a in subject)
        if other != subject:
            yield f"{reference}->{other}"


def _evaluate(
    evaluate: Evaluate, convention: Declaration, conversions: Mapping[str, Conversion], /, **primals: Array
) -> tuple[Output, Pullback]:
    """Evaluate a subject in its own convention, at a point and with results in the reference's."""
    convention.require_primals(primals)
    point = convention.nearest_point(primals)
    point = {n: convention.fused[n](a) if n in convention.fused else a for n, a in point.items()}
    point = {n: conversions[n].to(a) if n in conversions else a for n, a in point.items()}
    y, pull = evaluate(**point)

    def pullback(delta: Delta) -> Cotangents:
        names = names_of(y)
        negated = {n: np.negative for n in names if convention.conjugate and n.endswith(IMAGINARY)}
        given = _converted_output(delta, {n: c.to for n, c in conversions.items()}, names)
        cotangents = pull(_converted_output(given, negated, names))
        return {n: _converted_cotangent(n, g, convention, conversions, primals) for n, g in cotangents.items()}

    return _converted_output(y, {n: c.back for n, c in conversions.items()}, names_of(y)), pullback


def _converted_cotangent(
    name: str, cotangent: Cotangent, convention: Declaration, conversions: Mapping[str, Conversion], primals: Primals
) -> Cotangent:
    """Return a cotangent of the subject as the reference would give it; leave anything but an array to the judge."""
    if not isinstance(cotangent, np.ndarray):
        return cotangent
    if convention.conjugate and name.endswith(IMAGINARY):
        cotangent = -cotangent
    if name in conversions:
        cotangent = conversions[name].back(cotangent)
    if name in convention.scale:
        scale = convention.scale[name]
        factor = float(scale(**primals) if callable(scale) else scale)
        if not np.isfinite(factor) or not factor:
            raise InvalidInput(f"declared: scale of {name}: expected a finite number other than 0, got {factor}")
        cotangent = (cotangent / factor).astype(cotangent.dtype)
    if name in convention.symmetric and cotangent.shape == np.shape(primals[name]):
        cotangent = symmetrized(cotangent)
    return cotangent


def _converted_output(y: Output, functions: Mapping[str, Callable[[Array], Array]], names: Sequence[str]) -> Output:
    """Convert an output or its cotangent, by the names of the outputs or by position: "output[0]" of several."""
    parts = []
    for name, (position, part) in zip(names, named_by_position(y), strict=True):
        function = functions.get(name) or functions.get(position)
        parts.append(function(part) if function else part)
    converted: Output = like(y, parts)
    return converted


def _replaced(answer: Answer, at: Array, own: Array) -> Answer:
    if isinstance(answer, Enclosure):
        rounding = None if answer.rounding is None else np.where(at, 0.0, answer.rounding)
        return Enclosure(np.where(at, own, answer.mid), np.where(at, 0.0, answer.radius), rounding)
    return np.where(at, own, answer)


def _scaled(scale: Callable[..., float], factor: float, /, **primals: Array) -> float:
    return factor * scale(**primals)


def symmetrized(matrices: Array) -> Array:
    """Return (A + Aᵀ)/2 of the matrices in the last two axes, in their dtype."""
    halves = 0.5 * matrices
    result: Array = np.asanyarray(halves + np.swapaxes(halves, -1, -2)).astype(matrices.dtype, copy=False)
    return result


def _symmetric_point(matrices: Array) -> Array:
    """Return symmetric matrices as they are, and others symmetrized: finite differences move one entry alone."""
    if matrices.dtype.kind == "O" or matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2]:
        return matrices  # balls differentiate at the point itself; the judge refuses other shapes
    plain = matrices.view(np.ndarray)
    same = plain == np.swapaxes(plain, -1, -2)
    return matrices if bool(np.all(same | np.isnan(plain))) else symmetrized(matrices)


def _symmetrized_answer(answer: Answer) -> Answer:
    if not isinstance(answer, Enclosure):
        return symmetrized(np.asarray(answer))
    rounding = None if answer.rounding is None else symmetrized(answer.rounding)
    return Enclosure(symmetrized(answer.mid), symmetrized(answer.radius), rounding)


def _symmetrizing(primals: Primals) -> Linear:
    return Linear(symmetrized, symmetrized)


def _nearby(array: Array, rng: np.random.Generator) -> Array:
    """Return the array with every entry moved by a small share of itself."""
    moved: Array = (array * (1 + FACTOR_STEP * rng.uniform(0.5, 1.0, array.shape))).astype(array.dtype)
    return moved


def _require_symmetric(names: Sequence[str], primals: Primals) -> None:
    for name in names:
        array = np.asarray(primals[name])
        if array.ndim < 2 or array.shape[-1] != array.shape[-2]:
            raise InvalidInput(f"declared: symmetric: expected square matrices, got {name} of shape {array.shape}")
        other = np.swapaxes(array, -1, -2)
        differs = (array != other) & ~(np.isnan(array) & np.isnan(other))
        if np.any(differs):
            index = [int(i) for i in np.argwhere(differs)[0]]
            swapped = [*index[:-2], index[-1], index[-2]]
            raise InvalidInput(
                f"declared: symmetric: expected {name}{index} = {name}{swapped}, got "
                f"{float(array[tuple(index)])!r} and {float(array[tuple(swapped)])!r}.\n"
                f"Fix:    {name} = ({name} + np.swapaxes({name}, -1, -2)) / 2"
            )


def _by_norm(tolerance: Array) -> Array:
    """Return tolerances of at least `NORMWISE_FACTOR` times the largest one; an infinite one is its own entry's."""
    largest = float(np.max(tolerance, where=np.isfinite(tolerance), initial=0.0))
    return np.asarray(np.maximum(tolerance, NORMWISE_FACTOR * largest))


def _with_freedoms(
    declaration: Declaration, symmetric: tuple[str, ...], gauge: Mapping[str, str], accuracy: Accuracy
) -> Declaration:
    """Return the declaration with what no conversion expresses; what its rule declares of that already, remains."""
    inner = declaration.rule.convention
    if not isinstance(inner, Declaration):
        return replace(declaration, symmetric=symmetric, gauge=gauge, accuracy=accuracy)
    accuracies: tuple[Accuracy, ...] = (inner.accuracy, accuracy)
    return replace(
        declaration,
        symmetric=tuple(dict.fromkeys((*inner.symmetric, *symmetric))),
        gauge={**inner.gauge, **gauge},
        accuracy="normwise" if "normwise" in accuracies else "entrywise",
    )


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _straight_through(oracles: tuple[Rule, ...], steps: Sequence[str], primals: Primals) -> tuple[Rule, ...]:
    """Return the references with their steps replaced; finite differences know no straight-through gradient."""
    rules = [straight_through(o, steps) for o in oracles]
    references = {o.reference: o for o in rules if isinstance(o.reference, StraightThrough)}
    if not references:
        raise InvalidInput(
            "declared: gradient: expected a reference in torch or JAX, to differentiate its steps as the identity.\n"
            "Fix:    oracles.check(..., against=[oracles.torch_autograd(lambda z: z.round())])"
        )
    for f, o in references.items():
        if not f.replaced:
            attempt(partial(o, **with_dtype(dict(primals), np.float64)))  # what it raises, the judge reports
    if any(f.replaced for f in references):
        return tuple(references.values())
    if steps:
        raise InvalidInput(
            f"declared: steps: expected operations of the reference that keep the shape, got {', '.join(steps)}.\n"
            "Fix:    leave steps out: every operation whose derivative is zero is one"
        )
    note("the references have no step, and gradient='straight_through' changes nothing")
    return tuple(references.values())


def _valid_gradient(gradient: Gradient) -> Gradient:
    if gradient not in get_args(Gradient):
        raise InvalidInput(f"declared: gradient: expected 'true' or 'straight_through', got {gradient!r}")
    return gradient


def _valid_solved_to(tolerance: float) -> float:
    if not 0 <= tolerance < 1:
        raise InvalidInput(
            f"declared: solved_to: expected the solver's relative tolerance, a number below 1, got {tolerance!r}.\n"
            "Fix:    solved_to=1e-6"
        )
    return float(tolerance)


@dataclass(frozen=True)
class Writing:
    """An evaluation that writes into some of its arguments: it gets copies of these.

    Attributes:
        evaluate: the evaluation.
        names: the primals that it writes into, and "delta", or "delta[0]" of several.
    """

    evaluate: Evaluate
    names: tuple[str, ...]

    def __call__(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate; a second pullback follows a forward of its own, since the first one may have written into it."""
        calls = [self._forward(primals)]
        y = calls[0][0]

        def pullback(delta: Delta) -> Cotangents:
            _, pull, given = calls.pop() if calls else self._forward(primals)
            deltas = {f"delta[{i}]": np.asarray(d) for i, d in enumerate(as_tuple(delta))}
            passed = self._copies(deltas)
            cotangents = pull(like(delta, list(passed.values())))
            _note_writes({**primals, **deltas}, {**given, **passed})
            return cotangents

        return y, pullback

    def _forward(self, primals: Primals) -> tuple[Output, Pullback, Primals]:
        given = self._copies(primals)
        y, pullback = self.evaluate(**given)
        _note_writes(primals, given)
        return y, pullback, given

    def _copies(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the arrays, those of the declared names as copies."""
        return {n: _separate(a) if {n, n.partition("[")[0]} & {*self.names} else a for n, a in arrays.items()}


def _separate(array: Array) -> Array:
    """Copy an array with its strides; contiguous where entries share memory: nobody can write into one of those."""
    shares = any(stride == 0 and extent > 1 for stride, extent in zip(array.strides, array.shape, strict=True))
    return array.copy(order="C") if shares else copied(array)


def _note_writes(before: Mapping[str, Array], after: Mapping[str, Array]) -> None:
    """Make a note of every copy that differs from its original."""
    for name, array in after.items():
        # Numbers that are objects, as balls are, say nothing of memory.
        if array is not before[name] and array.dtype.kind != "O" and not same_values(array, before[name]):
            note(f"writes into {name}, as declared: a second backward of the same forward may be wrong")


def _with_output_dtype(evaluate: Evaluate, dtype: str, /, **primals: Array) -> tuple[Output, Pullback]:
    """Evaluate a rule whose floating outputs have a dtype of their own, and return them in that of the primals.

    Raises:
        TypeError: if an output has another dtype; this is a finding about the subject.
    """
    y, pull = evaluate(**primals)
    usual = stores_of(primals)[""]
    parts = [part for part in as_tuple(y) if isinstance(part, np.ndarray) and is_differentiable(part)]
    others = [part.dtype.name for part in parts if part.dtype.name != dtype]
    # In a finer precision, as the judge evaluates it too, code may follow its inputs.
    if others and is_coarser(usual, dtype):
        raise TypeError(f"outputs of {dtype} are declared, and it returned {others[0]}: leave output_dtype out")

    def cast(array: Array, to: npt.DTypeLike) -> Array:
        return array.astype(to) if isinstance(array, np.ndarray) and is_differentiable(array) else array

    given = usual if others else dtype

    def pullback(delta: Delta) -> Cotangents:
        return pull(like(y, [cast(np.asarray(d), given) for d in as_tuple(delta)]))

    return like(y, [cast(part, usual) for part in as_tuple(y)]), pullback


def _gauges(gauge: str | Mapping[str, str] | None) -> dict[str, str]:
    gauges = {"output": gauge} if isinstance(gauge, str) else dict(gauge or {})
    for name, value in gauges.items():
        if value not in GAUGES:
            raise InvalidInput(f"declared: gauge of {name}: expected one of {', '.join(GAUGES)}, got {value!r}")
    return gauges


def _valid_accuracy(accuracy: Accuracy) -> Accuracy:
    if accuracy not in get_args(Accuracy):
        raise InvalidInput(f"declared: accuracy: expected 'entrywise' or 'normwise', got {accuracy!r}")
    return accuracy
