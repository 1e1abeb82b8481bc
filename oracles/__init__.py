"""The judge of hand-written gradients: independent oracles, derived tolerances, verdicts with evidence.

    oracles.check(oracles.manual(forward, backward), primals, against=[oracles.torch_autograd(reference)])

Nothing is imported before it is asked for, not even NumPy: the package stands beside every pytest run as a plugin. And
neither torch nor jax is imported before an oracle that needs it is evaluated.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracles.check import check as check
    from oracles.conformance import conformance as conformance
    from oracles.conformance_of import conformance_of as conformance_of
    from oracles.finite_difference import finite_difference as finite_difference
    from oracles.jax_vjp import jax_vjp as jax_vjp
    from oracles.lifts.declared import declared as declared
    from oracles.lifts.isolated import Crashed as Crashed
    from oracles.lifts.isolated import isolated as isolated
    from oracles.lifts.jax_function import jax_function as jax_function
    from oracles.lifts.manual import elementwise as elementwise
    from oracles.lifts.manual import manual as manual
    from oracles.lifts.manual import manual_layer as manual_layer
    from oracles.lifts.manual import manual_loss as manual_loss
    from oracles.lifts.manual import manual_objective as manual_objective
    from oracles.lifts.manual import value_and_grad as value_and_grad
    from oracles.lifts.objects import Update as Update
    from oracles.lifts.scalar_graph import scalar_graph as scalar_graph
    from oracles.lifts.stateful import stateful as stateful
    from oracles.lifts.torch_function import torch_function as torch_function
    from oracles.lifts.torch_module import torch_module as torch_module
    from oracles.registry import Case as Case
    from oracles.registry import oracle_for as oracle_for
    from oracles.reporting.disagreement import Disagreement as Disagreement
    from oracles.rule import Enclosure as Enclosure
    from oracles.rule import ReferenceFailed as ReferenceFailed
    from oracles.rule import Rule as Rule
    from oracles.rule import Unfit as Unfit
    from oracles.torch_autograd import torch_autograd as torch_autograd
    from oracles.verdict import Result as Result
    from oracles.verdict import Verdict as Verdict

# Where each public name lives; tests hold this list against the imports above.
_HOMES = {
    "conformance": "conformance",
    "conformance_of": "conformance_of",
    "Disagreement": "reporting.disagreement",
    "finite_difference": "finite_difference",
    "jax_vjp": "jax_vjp",
    "check": "check",
    "Case": "registry",
    "oracle_for": "registry",
    "elementwise": "lifts.manual",
    "value_and_grad": "lifts.manual",
    "stateful": "lifts.stateful",
    "Update": "lifts.objects",
    "scalar_graph": "lifts.scalar_graph",
    "torch_function": "lifts.torch_function",
    "torch_module": "lifts.torch_module",
    "jax_function": "lifts.jax_function",
    "declared": "lifts.declared",
    "isolated": "lifts.isolated",
    "Crashed": "lifts.isolated",
    "Unfit": "rule",
    "ReferenceFailed": "rule",
    "Enclosure": "rule",
    "Rule": "rule",
    "manual": "lifts.manual",
    "manual_layer": "lifts.manual",
    "manual_loss": "lifts.manual",
    "manual_objective": "lifts.manual",
    "torch_autograd": "torch_autograd",
    "Result": "verdict",
    "Verdict": "verdict",
}


class _Face(ModuleType):
    """The package: a function wins over the module of the same name that it lives in (`oracles.conformance`)."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'oracles' has no attribute {name!r}")
        value = getattr(import_module(f"oracles.{_HOMES[name]}"), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule binds it here, under what may be a function's name.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Face
