"""The judge of hand-written gradients: independent oracles, derived tolerances, verdicts with evidence.

    oracles.check(oracles.manual(forward, backward), primals, against=[oracles.torch_autograd(reference)])

Neither torch nor jax is imported before an oracle that needs it is evaluated.
"""

from oracles.conformance import conformance as conformance
from oracles.disagreement import Disagreement as Disagreement
from oracles.finite_difference import finite_difference as finite_difference
from oracles.jax_vjp import jax_vjp as jax_vjp
from oracles.judge import check as check
from oracles.registry import Case as Case
from oracles.registry import oracle_for as oracle_for
from oracles.rule import Enclosure as Enclosure
from oracles.rule import Rule as Rule
from oracles.rule import manual as manual
from oracles.rule import manual_layer as manual_layer
from oracles.rule import manual_loss as manual_loss
from oracles.rule import manual_objective as manual_objective
from oracles.torch_autograd import torch_autograd as torch_autograd
from oracles.verdict import Result as Result
from oracles.verdict import Verdict as Verdict
