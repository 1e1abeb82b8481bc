"""Plant bugs: operations of manual_bp with one thing wrong.

A search draws the operation's reference cases and puts the bug in its place; at one case the diagnosis is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

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
    """A planted bug.

    Attributes:
        name: the bug's name.
        plant: makes the wrong operation of a correct one.
        cases: the name of the reference cases into which it is planted.
        refused_by, verdict, pattern: the property that refuses it, the verdict, and the diagnosed pattern.
        example: a case at which the bug is refused and diagnosed.
        silent: a case whose results the bug does not change, if there is one.
        quick: whether every run of the tests searches for it, in all its dtypes.
        dtypes: the dtypes in which it is refused.
        acceptable: other patterns that are true of it at some points.
    """

    name: str
    plant: Callable[[Any], Any]
    cases: str
    refused_by: str
    verdict: str
    pattern: str
    example: Case
    silent: Case | None
    quick: bool
    dtypes: tuple[str, ...]
    acceptable: tuple[str, ...] = ()

    @property
    def layer_type(self) -> type:
        """The type of the correct operation."""
        return type(self.example.subject.implementation)

    def cases_with_bug(self) -> st.SearchStrategy[Case]:
        """Return the operation's reference cases, each with the bug."""
        (entry,) = entries([self.cases])
        return entry.cases.map(self.with_bug)

    def with_bug(self, case: Case) -> Case:
        """Return the case of a correct operation with the wrong one in its place."""
        subject = case.subject.adapt(self.plant(case.subject.implementation))
        return replace(case, subject=replace(subject, name=self.name))


BUGS: list[Bug] = []
Mutation = TypeVar("Mutation", bound=Callable[..., Any])


def bug(
    pattern: str,
    example: Case,
    *,
    silent: Case | None = None,
    refused_by: str = "cotangents_agree",
    verdict: str = "wrong",
    cases: str = "",
    quick: bool = False,
    dtypes: tuple[str, ...] = DTYPES,
    acceptable: tuple[str, ...] = (),
) -> Callable[[Mutation], Mutation]:
    """Register a bug: a subclass of the operation, or a function from the correct operation to the wrong one."""

    def register(mutation: Mutation) -> Mutation:
        plant: Callable[[Any], Any] = mutation
        if isinstance(mutation, type):
            plant = lambda layer: mutation(*(getattr(layer, f.name) for f in fields(layer)))  # noqa: E731
        kind = cases or type(example.subject.implementation).__name__
        name = mutation.__name__
        BUGS.append(Bug(name, plant, kind, refused_by, verdict, pattern, example, silent, quick, dtypes, acceptable))
        return mutation

    return register


def case_of(operation: Any, **inputs: Drawn) -> Case:
    """Return the case of an operation at these inputs; its parameters are drawn as in its reference cases."""
    adapt = optimizer_run if hasattr(operation, "step") else manual_layer if hasattr(operation, "init") else manual_loss
    primals = {**inputs, **parameters_of(operation), **inputs} if adapt is manual_layer else inputs
    return reference_of(type(operation)).case(adapt(operation), primals, kinks="declared")


class Mutant:
    """A layer with another backward or another forward."""

    def __init__(
        self,
        layer: Any,
        backward: Callable[[Any, Any], Any] | None = None,
        forward: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.layer, self.inputs, self.outputs = layer, inputs_of(layer), outputs_of(layer)
        self.forward = forward or layer.forward
        self.backward = backward or layer.backward


def with_backward(layer: Any, backward: Callable[[Any, Any, Any, Any], Any]) -> Mutant:
    """Return the layer with another backward: a function of z, y, delta and the correct (dz, dparams)."""

    def forward(params: Any, z: Any) -> Any:
        y, cache = layer.forward(params, z)
        return y, (z, y, cache)

    return Mutant(layer, lambda cache, delta: backward(*cache[:2], delta, layer.backward(cache[2], delta)), forward)


def logistic(z: Any) -> Any:
    """Return 1/(1 + e^{−z}) by the textbook's formula, which is less accurate than the layer's."""
    return 1 / (1 + np.exp(-np.clip(z, -80, 80)))
