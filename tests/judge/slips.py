"""A slip is an operation of manual_bp with one thing wrong, and the pattern that its diagnosis must name.

It subclasses the operation, so that every configuration which is drawn for the operation may be wrong in it too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import Any

import numpy as np
from hypothesis import strategies as st

import oracles.diagnosis.naming
from oracles import Case, Rule
from oracles.judging.judge import judge
from oracles.registry import entries
from oracles.reporting.report import diagnosis_of
from oracles.strategies import Drawn, point_at


@dataclass(frozen=True)
class Slip:
    """A wrong operation, the pattern that is found at these primals in this configuration, and what must refuse it.

    A silent one is right in the default configuration, beside what is required, at the primals `silent`.
    """

    wrong: type
    lift: Callable[[Any], Rule]
    pattern: str
    check: str
    primals: Mapping[str, Drawn]
    configured: Mapping[str, Any]
    silent: Mapping[str, Drawn] | None
    required: Mapping[str, Any]

    @property
    def right(self) -> type:
        return self.wrong.__mro__[1]

    def planted(self) -> st.SearchStrategy[Case]:
        """The cases of the operation, with the slip in the place of each."""
        (entry,) = (e for e in entries() if e.speaks_for is self.right and e.name == self.right.__name__)

        def spoiled(case: Case) -> Case:
            right = case.subject.lifted
            return replace(case, subject=self.lift(self.wrong(*(getattr(right, f.name) for f in fields(right)))))

        return entry.cases.map(spoiled)

    def at(self, seed: int, primals: Mapping[str, Drawn], **configured: Any):
        """Judge the slip at one point."""
        configured = {**self.required, **configured}
        twin = import_module(self.right.__module__.replace("manual_bp", "oracles.cases", 1))
        options = twin.options(self.right(**configured)) if hasattr(twin, "options") else {}
        subject = self.lift(self.wrong(**configured))
        case = Case(subject, primals, twin.torch_reference, twin.jax_reference, options)
        point = point_at(subject, primals, "float64", seed=seed)
        return judge(subject, point.primals, point.delta, case.oracles(), kinks="declared")

    def diagnosed(self, monkeypatch, seed: int) -> str:
        """The id of the pattern that is found at one point, "" where none is."""
        found = []
        diagnose = oracles.diagnosis.naming.diagnose
        monkeypatch.setattr(oracles.diagnosis.naming, "diagnose", lambda s: found.append(diagnose(s)) or found[-1])
        result = self.at(seed, self.primals, **self.configured)
        assert result.refuses, "no slip is seen at this point"
        diagnosis_of(result)
        return found[-1].pattern


SLIPS: list[Slip] = []


def slip(
    lift: Callable[[Any], Rule],
    pattern: str,
    primals: Mapping[str, Drawn],
    *,
    silent: Mapping[str, Drawn] | bool = False,
    required: Mapping[str, Any] | None = None,
    check: str = "cotangents_agree",
    **configured: Any,
) -> Callable[[type], type]:
    """Register a wrong operation, with the pattern that is found at these primals in this configuration."""

    def add(wrong: type) -> type:
        at = primals if silent is True else silent or None
        SLIPS.append(Slip(wrong, lift, pattern, check, primals, configured, at, required or {}))
        return wrong

    return add


def logistic(z: Any) -> Any:
    """Return the logistic of z by the textbook, where a slip needs it."""
    return 1 / (1 + np.exp(-np.clip(z, -80, 80)))
