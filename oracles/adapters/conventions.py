"""Conventions that a subject declares, so that a convention is no bug: and declared means checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from oracles.adapters.layouts import Layout, others, turn
from oracles.rule import (
    Array,
    Cotangents,
    Enclosure,
    Evaluate,
    InvalidInput,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
)
from oracles.tolerance import unit_roundoff

Scale: TypeAlias = float | Callable[..., float]


@dataclass(frozen=True)
class Declaration:
    """What `declared` was told, and the rule that it was told of."""

    rule: Rule
    scale: Mapping[str, Scale] = field(default_factory=dict)
    layout: Mapping[str, Layout] = field(default_factory=dict)
    fused: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)
    kinks: Mapping[str, Mapping[float, float]] = field(default_factory=dict)

    def alternatives(self, factors: Mapping[str, float], slopes: Mapping[str, float]) -> Iterator[tuple[str, Rule]]:
        """Yield declarations that differ in one point, each with what it says.

        Args:
            factors: what each cotangent is times the oracle's, where that is one number; slopes: the derivative that
                the subject takes at its declared kinks.
        """
        for name, layout in self.layout.items():
            for other in others(layout):
                yield f"layout={{{name!r}: {other!r}}}", self._but(layout={**self.layout, name: other})
        for name, factor in factors.items():
            scale = self.scale.get(name, 1.0)
            words = f"{factor:.6g} times that" if callable(scale) else f"{scale * factor:.6g}"
            better = _times(scale, factor) if callable(scale) else scale * factor
            yield f"scale={{{name!r}: {words}}}", self._but(scale={**self.scale, name: better})
        for name, slope in slopes.items():
            kinks = dict.fromkeys(self.kinks[name], slope)
            yield f"kinks={{{name!r}: {kinks}}}", self._but(kinks={**self.kinks, name: kinks})

    def unfused(self, name: str, primals: Primals) -> tuple[Rule, dict[str, Array]]:
        """Return the rule without one fused function, and the point at which it then stands."""
        rest = {n: f for n, f in self.fused.items() if n != name}
        return self._but(fused=rest), {**primals, name: np.asarray(self.fused[name](primals[name]))}

    def _but(self, **changed: Any) -> Rule:
        other = replace(self, **changed)
        return declared(self.rule, scale=other.scale, layout=other.layout, fused=other.fused, kinks=other.kinks)

    def at_kinks(self, name: str, primals: Primals) -> tuple[Array, Array]:
        """Return where a primal stands at a declared kink, and the derivative declared there."""
        at, slope = np.zeros(primals[name].shape, bool), np.zeros(primals[name].shape)
        for kink, derivative in self.kinks[name].items():
            here = np.asarray(primals[name] == kink)
            at, slope = at | here, np.where(here, derivative, slope)
        return at, slope

    def misses(self, primals: Primals, delta: Any, cotangents: Cotangents, precision: str) -> dict[str, str]:
        """Say for each primal with declared kinks where the subject takes another derivative; nothing where none."""
        found = {}
        for name in self.kinks:
            if name not in cotangents or np.shape(cotangents[name]) != np.shape(delta):
                continue
            at, slope = self.at_kinks(name, primals)
            d, got = np.asarray(delta, np.float64), np.asarray(cotangents[name], np.float64)
            off = at & ~(np.abs(got - slope * d) <= 4 * unit_roundoff(precision) * np.abs(slope * d))
            if np.any(off):
                where = tuple(int(i) for i in np.argwhere(off)[0])
                found[name] = (
                    f"at {name}{list(where)} = {float(primals[name][where]):g} the derivative {slope[where]:g} is "
                    f"declared, and {got[where] / d[where] if d[where] else got[where]:g} came"
                )
        return found

    def excused(
        self, primals: Primals, got: Mapping[str, Any], answers: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Return the oracles' answers with the subject's own where a declared kink, already checked, stands."""
        found = {oracle: dict(said) for oracle, said in answers.items()}
        for name in self.kinks:
            if name in got and np.shape(got[name]) == np.shape(primals[name]):
                at, _ = self.at_kinks(name, primals)
                mine = np.asarray(got[name], np.float64)
                for said in found.values():
                    if name in said:
                        said[name] = _with(said[name], at, mine)
        return found


def declared(
    rule: Rule,
    *,
    scale: Mapping[str, Scale] | None = None,
    layout: Mapping[str, Layout] | None = None,
    fused: Mapping[str, Callable[[Array], Array]] | None = None,
    kinks: Mapping[str, Mapping[float, float]] | None = None,
) -> Rule:
    """Declare the conventions in which a subject differs from its references; it is held to them.

    Points and cotangents are those of the references; the subject is fed and read in its own convention. A
    declaration that does not fit is refused, and the report says which would.

    Args:
        rule: the subject.
        scale: ``{primal: factor}``: its cotangent is the gradient times the factor, a number or a function
            ``f(**primals)``: ``{"W": lambda z, **_: 1 / len(z)}`` for a dW averaged over the rows.
        layout: ``{primal or "output": "NCHW->NHWC"}``: how the reference's axes stand in the subject's array, 1 for an
            axis of length one ("n->1n"), ... for any others; or a pair of functions, there and back.
        fused: ``{primal: f}``: the subject takes f of the primal, yet returns the gradient of the primal itself, as a
            loss on probabilities that returns the gradient of the logits: ``{"a": softmax}``.
        kinks: ``{primal: {kink: derivative}}`` of a function entry by entry: ``{"z": {0.0: 0.5}}``.

    Raises:
        InvalidInput: for names that are no primals, when evaluated; for what is no layout, at once.
    """
    told = Declaration(rule, dict(scale or {}), dict(layout or {}), dict(fused or {}), dict(kinks or {}))
    turns = {name: turn(name, how) for name, how in told.layout.items()}

    def in_convention(evaluate: Evaluate) -> Evaluate:
        def converted(**primals: Array) -> tuple[Any, Pullback]:
            _require_names(told, primals)
            fed = {n: told.fused[n](a) if n in told.fused else a for n, a in primals.items()}
            fed = {n: turns[n].to(a) if n in turns else a for n, a in fed.items()}
            y, pull = evaluate(**fed)

            def pullback(delta: Any) -> Cotangents:
                came = pull(_each_output(delta, lambda turned: turned.to, turns))
                return {n: _restored(n, g, told, turns, primals) for n, g in came.items()}

            return _each_output(y, lambda turned: turned.back, turns), pullback

        return converted

    ways = {way: in_convention(evaluate) for way, evaluate in rule.call_patterns.items()}
    return replace(
        rule, evaluate=in_convention(rule.evaluate), evaluate_perturbed=None, call_patterns=ways, declared=told
    )


def _restored(name: str, cotangent: Any, told: Declaration, turns: Mapping[str, Any], primals: Primals) -> Any:
    """Return a cotangent of the subject's as the reference would give it; what is no array is left to the judge."""
    if not isinstance(cotangent, np.ndarray):
        return cotangent
    if name in turns:
        cotangent = turns[name].back(cotangent)
    if name in told.scale:
        scale = told.scale[name]
        factor = float(scale(**primals) if callable(scale) else scale)
        if not np.isfinite(factor) or not factor:
            raise InvalidInput(f"declared: scale of {name}: expected a finite number other than 0, got {factor}")
        cotangent = (cotangent / factor).astype(cotangent.dtype)
    return cotangent


def _each_output(y: Any, way: Callable[[Any], Callable[[Array], Array]], turns: Mapping[str, Any]) -> Any:
    """Turn an output, or its cotangent: "output", or "output[0]" and so on of several."""
    parts = as_tuple(y)
    names = ["output"] if not isinstance(y, tuple | list) else [f"output[{i}]" for i in range(len(parts))]
    turned = tuple(way(turns[n])(p) if n in turns else p for n, p in zip(names, parts, strict=True))
    return turned if isinstance(y, tuple | list) else turned[0]


def _require_names(told: Declaration, primals: Primals) -> None:
    for what, names in (("scale", told.scale), ("layout", told.layout), ("fused", told.fused), ("kinks", told.kinks)):
        unknown = [n for n in names if n not in primals and not (what == "layout" and n.split("[")[0] == "output")]
        if unknown:
            raise InvalidInput(f"declared: {what}: {', '.join(unknown)} unknown; the primals are {', '.join(primals)}")
    integer = [n for n in (*told.scale, *told.kinks) if not is_differentiable(primals[n])]
    if integer:
        raise InvalidInput(f"declared: {', '.join(integer)} has no cotangent: it is no floating primal")


def _with(answer: Any, at: Array, mine: Array) -> Any:
    if isinstance(answer, Enclosure):
        rounding = None if answer.rounding is None else np.where(at, 0.0, answer.rounding)
        return Enclosure(np.where(at, mine, answer.mid), np.where(at, 0.0, answer.radius), rounding)
    return np.where(at, mine, answer)


def _times(scale: Callable[..., float], factor: float) -> Callable[..., float]:
    return lambda **primals: factor * scale(**primals)
