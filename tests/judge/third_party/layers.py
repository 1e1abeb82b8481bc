"""The registry: a layer with its right backward, and the mistakes that people make in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracles import Rule, manual, torch_autograd

Draw = Callable[[np.random.Generator, int], Mapping[str, Any]]


@dataclass(frozen=True)
class WrongLayer:
    """A layer with one mistake.

    Attributes:
        name: the layer and the mistake.
        pattern: the id of the right diagnosis.
        acceptable: further ids that are true of it as well.
        wrong, right: the subject with the mistake, and the one without.
        oracle: the reference.
        draw: draws the primals; the number asks for other shapes.
    """

    name: str
    pattern: str
    acceptable: tuple[str, ...]
    wrong: Rule
    right: Rule
    oracle: Rule
    draw: Draw


WRONG_LAYERS: list[WrongLayer] = []


@dataclass(frozen=True)
class Layer:
    """A right layer in NumPy: forward(**primals) -> (y, cache), backward(cache, delta) -> {name: cotangent}."""

    name: str
    reference: Callable[..., Any]
    forward: Callable[..., Any]
    backward: Callable[[Any, Any], Mapping[str, Any]]
    draw: Draw

    def mistake(
        self,
        what: str,
        pattern: str,
        acceptable: tuple[str, ...] = (),
        *,
        forward: Callable[..., Any] | None = None,
        **wrong: Callable[[Any, Any, Any], Any],
    ) -> None:
        """Register a mistake: cotangents as functions of the cache, delta and the right cotangent."""

        def backward(cache: Any, delta: Any) -> Mapping[str, Any]:
            right = dict(self.backward(cache, delta))
            return {**right, **{n: f(cache, delta, right[n]) for n, f in wrong.items()}}

        register(
            f"{self.name}: {what}",
            pattern,
            acceptable,
            manual(forward or self.forward, backward, name=self.name),
            manual(self.forward, self.backward, name=self.name),
            torch_autograd(self.reference),
            self.draw,
        )


def register(
    name: str, pattern: str, acceptable: tuple[str, ...], wrong: Rule, right: Rule, oracle: Rule, draw: Draw
) -> None:
    """Register a wrong layer and its right control, of any adapter."""
    WRONG_LAYERS.append(WrongLayer(name, pattern, acceptable, wrong, right, oracle, draw))


def normal(*shape: int, **names: Any) -> Draw:
    """Draw one normal array x; the k-th shape has every extent larger by k, the first by 2k."""
    return lambda rng, k: {"x": rng.standard_normal(grown(shape, k))}


def grown(shape: tuple[int, ...], k: int) -> tuple[int, ...]:
    """Return the k-th variant of a shape: no two axes grow alike."""
    return tuple(n + (axis + 1) * k for axis, n in enumerate(shape))
