"""Outputs that a problem leaves open: eigenvectors and singular vectors are determined up to their signs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oracles.outputs import like
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Derived,
    Evaluate,
    EvaluatePerturbed,
    Output,
    Perturbation,
    Primals,
    Pullback,
    Rule,
    as_tuple,
)

# The axis of a vector's entries by the gauge's name; the other of the last two axes numbers the vectors.
GAUGES = {"sign": -2, "sign of columns": -2, "sign of rows": -1}


@dataclass(frozen=True)
class Signs:
    """The signs of vectors in the outputs at one point.

    Attributes:
        anchor: the outputs there, by name.
        gauge: a name in `GAUGES` for each of them.
    """

    anchor: Mapping[str, Array]
    gauge: Mapping[str, str]

    def aligned(self, rule: Rule) -> Rule:
        """Return a rule with the signs of its outputs chosen like the anchor's: y D, and the pullback of delta D."""

        def evaluate(**primals: Array) -> tuple[Output, Pullback]:
            y, pull = rule(**primals)
            signs = self.of(y)

            def pullback(delta: Delta) -> Cotangents:
                return pull(_times(delta, signs))

            return _times(y, signs), pullback

        perturbed = self._perturbed(rule)
        return replace(rule, evaluate=evaluate, evaluate_perturbed=perturbed, call_patterns={}, derived=None)

    def derived(self, rule: Rule, evaluate: Evaluate) -> Derived:
        """Return the derivatives of the aligned rule, whose evaluation is ``evaluate``.

        The signs are locally constant, so the pullback G of the aligned rule is G(primals, delta D). A rule with
        signs of its own at every point has no forward mode.
        """
        second = rule.derivatives.second

        def aligned_second(wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
            assert second is not None
            made = second(wrt, deltas)

            def signed(arrays: Primals, y: Output, signs: Mapping[str, Array]) -> dict[str, Array]:
                known = [n for n in deltas if n in arrays]
                if len(known) < len(deltas):
                    return dict(arrays)
                parts = as_tuple(_times(like(y, [arrays[n] for n in deltas]), signs))
                return {**arrays, **dict(zip(deltas, parts, strict=True))}

            def evaluate_second(**arguments: Array) -> tuple[Output, Pullback]:
                y = rule(**{n: a for n, a in arguments.items() if n not in deltas})[0]
                signs = self.of(y)
                gradients, pull = made.evaluate(**signed(arguments, y, signs))
                return gradients, lambda w: signed(pull(w), y, signs)

            return replace(made, evaluate=evaluate_second, evaluate_perturbed=None, call_patterns={}, derived=None)

        return Derived(evaluate, second and aligned_second)

    def _perturbed(self, rule: Rule) -> EvaluatePerturbed | None:
        perturb = rule.evaluate_perturbed
        if perturb is None:
            return None

        def evaluate_perturbed(
            primals: Primals, delta: Delta, perturbation: Perturbation
        ) -> tuple[tuple[Array, ...], Cotangents]:
            # The signs are known after the forward alone, and delta belongs to them. So where rounding turns a sign,
            # the same perturbation is evaluated again.
            again = perturbation._replace(rng=copy.deepcopy(perturbation.rng))
            y, cotangents = perturb(primals, delta, perturbation)
            signs = self.of(_like(y, delta))
            if any(np.any(s < 0) for s in signs.values()):
                y, cotangents = perturb(primals, _times(delta, signs), again)
            return as_tuple(_times(_like(y, delta), signs)), cotangents

        return evaluate_perturbed

    def of(self, y: Output) -> dict[str, Array]:
        """Return the sign of each vector next to the anchor's, by output, in shapes that multiply it.

        Vectors of one index have one sign in all outputs: that of the sum of their inner products with the anchor.
        """
        parts = dict(named_by_position(y))
        products = {
            n: np.sum(_plain(parts[n]) * anchor, axis=self._axis(n, anchor))
            for n, anchor in self.anchor.items()
            if isinstance(parts.get(n), np.ndarray) and _fits(parts[n], anchor)
        }
        lengths = {n: np.shape(p)[-1] if np.ndim(p) else 1 for n, p in products.items()}
        signs = {}
        for n, length in lengths.items():
            # A full decomposition has more columns than rows: those beyond the shared ones have signs of their own.
            total = sum(_padded(np.atleast_1d(p), length) for p in products.values())
            sign = np.where(np.asarray(total) < 0, -1.0, 1.0)
            axis = self._axis(n, self.anchor[n])
            signs[n] = sign if np.ndim(products[n]) == 0 else np.expand_dims(sign, axis)
        return signs

    def _axis(self, name: str, array: Array) -> int | tuple[int, ...]:
        """Return the axis of a vector's entries; an array of one axis is one vector."""
        return GAUGES[self.gauge[name]] if array.ndim > 1 else tuple(range(array.ndim))


def _fits(part: Array, anchor: Array) -> bool:
    # Balls are evaluated at the anchor's own point.
    return part.shape == anchor.shape and part.dtype.kind != "O" and anchor.dtype.kind != "O"


def _plain(part: Array) -> Array:
    return part.view(np.ndarray).astype(np.float64)


def _padded(products: Array, length: int) -> Array:
    missing = max(0, length - products.shape[-1])
    return np.pad(products[..., :length], [(0, 0)] * (products.ndim - 1) + [(0, missing)])


def _times(y: Output, signs: Mapping[str, Array]) -> Output:
    """Return the outputs, or their cotangents, with signs turned: exactly, and unchanged where none turns."""
    parts = tuple(
        np.where(np.broadcast_to(signs[n] < 0, np.shape(part)), -part, part).astype(part.dtype)
        if n in signs and np.any(signs[n] < 0)
        else part
        for n, part in named_by_position(y)
    )
    signed: Output = like(y, parts)
    return signed


def named_by_position(y: Output) -> list[tuple[str, Any]]:
    """Return the outputs of a subject, named by their positions: "output", or "output[0]" and so on of a tuple."""
    several = isinstance(y, tuple | list)
    return [(f"output[{i}]" if several else "output", part) for i, part in enumerate(as_tuple(y))]


def _like(y: tuple[Array, ...], delta: Delta) -> Output:
    """Return outputs in the structure of their cotangent: one array, or several."""
    return y if isinstance(delta, tuple | list) else y[0]
