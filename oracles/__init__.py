"""Verify hand-written gradients: independent oracles, derived tolerances, verdicts with evidence.

    oracles.check(oracles.manual(forward, backward), primals, against=[oracles.torch_autograd(reference)])

The package is loaded by every pytest run, as a plugin. So each public name is imported when it is first used, and
neither NumPy, torch nor JAX before that.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oracles.adapters.child_process import isolated as isolated
    from oracles.adapters.conventions import declared as declared
    from oracles.adapters.functions import elementwise as elementwise
    from oracles.adapters.functions import manual as manual
    from oracles.adapters.functions import manual_layer as manual_layer
    from oracles.adapters.functions import manual_loss as manual_loss
    from oracles.adapters.functions import manual_objective as manual_objective
    from oracles.adapters.functions import value_and_grad as value_and_grad
    from oracles.adapters.jax_functions import jax_function as jax_function
    from oracles.adapters.objects import Update as Update
    from oracles.adapters.objects import stateful as stateful
    from oracles.adapters.scalar_engine import scalar_graph as scalar_graph
    from oracles.adapters.torch_code import torch_function as torch_function
    from oracles.adapters.torch_code import torch_module as torch_module
    from oracles.adapters.torch_derivatives import torch_differentiated as torch_differentiated
    from oracles.backends.devices import DeviceLost as DeviceLost
    from oracles.backends.jax_reference import jax_vjp as jax_vjp
    from oracles.backends.torch_reference import torch_autograd as torch_autograd
    from oracles.decorators import conformance as conformance
    from oracles.finite_differences import finite_difference as finite_difference
    from oracles.forked import Crashed as Crashed
    from oracles.functionals import TaylorResult as TaylorResult
    from oracles.functionals import taylor as taylor
    from oracles.numerics import Numerics as Numerics
    from oracles.point import check as check
    from oracles.registry import Case as Case
    from oracles.registry import oracle_for as oracle_for
    from oracles.reimplementation import conformance_of as conformance_of
    from oracles.report.disagreement import Disagreement as Disagreement
    from oracles.report.disagreement import Inconclusive as Inconclusive
    from oracles.report.disagreement import InconclusiveWarning as InconclusiveWarning
    from oracles.rule import Enclosure as Enclosure
    from oracles.rule import InternalError as InternalError
    from oracles.rule import InvalidInput as InvalidInput
    from oracles.rule import ReferenceFailed as ReferenceFailed
    from oracles.rule import Rule as Rule
    from oracles.rule import Unimplemented as Unimplemented
    from oracles.untrusted.judgement import Judgement as Judgement
    from oracles.untrusted.judging import judge_untrusted as judge_untrusted
    from oracles.untrusted.remote import Sandbox as Sandbox
    from oracles.verdict import Result as Result
    from oracles.verdict import Verdict as Verdict

# The module of each public name; a test compares this table with the imports above.
_MODULES = {
    "Case": "registry",
    "Crashed": "forked",
    "DeviceLost": "backends.devices",
    "Disagreement": "report.disagreement",
    "Enclosure": "rule",
    "Inconclusive": "report.disagreement",
    "InconclusiveWarning": "report.disagreement",
    "InternalError": "rule",
    "InvalidInput": "rule",
    "Judgement": "untrusted.judgement",
    "ReferenceFailed": "rule",
    "Result": "verdict",
    "Numerics": "numerics",
    "Rule": "rule",
    "Sandbox": "untrusted.remote",
    "TaylorResult": "functionals",
    "Unimplemented": "rule",
    "Update": "adapters.objects",
    "Verdict": "verdict",
    "check": "point",
    "conformance": "decorators",
    "conformance_of": "reimplementation",
    "declared": "adapters.conventions",
    "elementwise": "adapters.functions",
    "finite_difference": "finite_differences",
    "isolated": "adapters.child_process",
    "jax_function": "adapters.jax_functions",
    "jax_vjp": "backends.jax_reference",
    "judge_untrusted": "untrusted.judging",
    "manual": "adapters.functions",
    "manual_layer": "adapters.functions",
    "manual_loss": "adapters.functions",
    "manual_objective": "adapters.functions",
    "oracle_for": "registry",
    "scalar_graph": "adapters.scalar_engine",
    "stateful": "adapters.objects",
    "taylor": "functionals",
    "torch_autograd": "backends.torch_reference",
    "torch_differentiated": "adapters.torch_derivatives",
    "torch_function": "adapters.torch_code",
    "torch_module": "adapters.torch_code",
    "value_and_grad": "adapters.functions",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'oracles' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"oracles.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        from oracles.missing import missing_of

        if missing := missing_of(error):
            error.add_note(f"Fix:    {missing.fix}")
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
