"""How to plant a bug in a layer that is drawn with every option of the real one.

A plant is a subclass of the layer, or the layer with another forward or backward. `silent` says at which configurations
nothing shows: the default one, where there is such.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from hypothesis import strategies as st

from manual_bp.protocol import inputs_of, outputs_of
from oracles import Case, manual_layer
from oracles.registry import entries


@dataclass(frozen=True)
class Plant:
    """A wrong layer made of a right one, who must refuse it, how it is diagnosed, and where it does not show."""

    name: str
    kind: str
    killer: str
    diagnosis: str
    made: Callable[[Any], Any]
    silent: Callable[[Any], bool] | None

    def planted(self, *, where: Callable[[Any], bool] = lambda layer: True) -> st.SearchStrategy[Case]:
        (entry,) = entries([self.kind])
        cases = entry.cases.filter(lambda case: where(case.subject.lifted))
        return cases.map(
            lambda case: replace(case, subject=manual_layer(self.made(case.subject.lifted), name=self.name))
        )


PLANTS: list[Plant] = []


def plant(
    kind: type | str, killer: str, diagnosis: str, silent: Callable[[Any], bool] | None = None
) -> Callable[..., Any]:
    """Plant a function of the right layer, or a subclass of its kind."""

    def add(made: Any) -> Any:
        of = (lambda layer: made(*(getattr(layer, f.name) for f in fields(layer)))) if isinstance(made, type) else made
        PLANTS.append(
            Plant(made.__name__, kind if isinstance(kind, str) else kind.__name__, killer, diagnosis, of, silent)
        )
        return made

    return add


class Wrong:
    """A layer with another backward, or another forward; each is told the layer."""

    def __init__(self, layer: Any, backward: Any = None, forward: Any = None) -> None:
        self.layer, self.inputs, self.outputs = layer, inputs_of(layer), outputs_of(layer)
        self.forward = forward or layer.forward
        self.backward = backward or layer.backward
