"""How to plant a bug: an operation of manual_bp with one thing wrong.

It stands in for the operation in every case that is drawn for it, and at one point its diagnosis is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from manual_bp.protocol import inputs_of, outputs_of
from oracles import Case
from oracles.adapters.functions import manual_layer, manual_loss
from oracles.references._composition import parameters_of
from oracles.references.optimizers import optimizer_run
from oracles.registry import entries, reference_of
from oracles.strategies import Drawn

DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Bug:
    """A wrong operation made of a right one, the property that refuses it, its verdict, and its diagnosed pattern.

    At `silent` it does not show. One that is `quick` to be found is searched for in every run, in all its dtypes.
    """

    name: str
    wrong: Callable[[Any], Any]
    cases: str
    refused_by: str
    verdict: str
    pattern: str
    shown: Case
    silent: Case | None
    quick: bool
    dtypes: tuple[str, ...]

    @property
    def of(self) -> type:
        return type(self.shown.subject.implementation)

    def planted(self) -> st.SearchStrategy[Case]:
        """The cases that are drawn for the operation, with the bug in each."""
        (entry,) = entries([self.cases])
        return entry.cases.map(self.spoilt)

    def spoilt(self, right: Case) -> Case:
        """The case of a right operation with the wrong one in its place."""
        return replace(
            right, subject=replace(right.subject.adapt(self.wrong(right.subject.implementation)), name=self.name)
        )


BUGS: list[Bug] = []


def bug(
    pattern: str,
    shown: Case,
    *,
    silent: Case | None = None,
    refused_by: str = "cotangents_agree",
    verdict: str = "wrong",
    cases: str = "",
    quick: bool = False,
    dtypes: tuple[str, ...] = DTYPES,
) -> Callable[[Any], Any]:
    """Plant a subclass of the operation, or a function that makes the wrong one of the right one."""

    def plant(made: Any) -> Any:
        wrong = made
        if isinstance(made, type):
            wrong = lambda right: made(*(getattr(right, f.name) for f in fields(right)))  # noqa: E731
        kind = cases or type(shown.subject.implementation).__name__
        BUGS.append(Bug(made.__name__, wrong, kind, refused_by, verdict, pattern, shown, silent, quick, dtypes))
        return made

    return plant


def at(right: Any, **inputs: Drawn) -> Case:
    """The case of an operation at these inputs; its parameters are drawn as in its reference cases."""
    adapt = optimizer_run if hasattr(right, "step") else manual_layer if hasattr(right, "init") else manual_loss
    primals = {**inputs, **parameters_of(right), **inputs} if adapt is manual_layer else inputs
    return reference_of(type(right)).case(adapt(right), primals, kinks="declared")


class Wrong:
    """A layer with another backward, or another forward; each is told the layer."""

    def __init__(self, layer: Any, backward: Any = None, forward: Any = None) -> None:
        self.layer, self.inputs, self.outputs = layer, inputs_of(layer), outputs_of(layer)
        self.forward = forward or layer.forward
        self.backward = backward or layer.backward


def going_back(layer: Any, backward: Callable[[Any, Any, Any, Any], Any]) -> Wrong:
    """A layer whose backward is a function of its z and y, of delta, and of what is right: (dz, dparams)."""

    def forward(params: Any, z: Any) -> Any:
        y, cache = layer.forward(params, z)
        return y, (z, y, cache)

    return Wrong(layer, lambda kept, delta: backward(*kept[:2], delta, layer.backward(kept[2], delta)), forward)


def logistic(z: Any) -> Any:
    """Return 1/(1 + e^{−z}) by the textbook, where a bug needs it."""
    return 1 / (1 + np.exp(-np.clip(z, -80, 80)))
