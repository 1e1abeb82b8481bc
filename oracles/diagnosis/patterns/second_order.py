"""Patterns of the second order: a pullback that is right, and a derivative of it that is not."""

from __future__ import annotations

import numpy as np

from oracles.constants import GRAPH_ENTRIES
from oracles.diagnosis.experiments import Symptoms
from oracles.finite_differences import differences_at
from oracles.rule import Runtime
from oracles.second_order import PullbackOf


def cut_graph(symptoms: Symptoms) -> str | None:
    """Detect a pullback whose finite differences agree with the oracle, where its own derivative does not."""
    subject = symptoms.subject
    if not isinstance(subject.implementation, PullbackOf) or symptoms.name not in symptoms.primals:
        return None
    if not symptoms.has_expected_shape:
        return None
    wrong = np.flatnonzero(symptoms.refusal.wrong)[:GRAPH_ENTRIES]
    slopes = differences_at(wrong, symptoms.name, subject, symptoms.primals, symptoms.delta)
    mid, radius = slopes.mid.ravel()[wrong], slopes.radius.ravel()[wrong]
    expected, tolerance = symptoms.expected.ravel()[wrong], symptoms.tolerance.ravel()[wrong]
    actual = np.asarray(symptoms.actual, np.float64).ravel()[wrong]
    known = np.isfinite(radius)
    if not np.any(known) or not np.all((np.abs(mid - expected) <= radius + tolerance)[known]):
        return None
    if not np.all((np.abs(mid - actual) > radius + tolerance)[known]):
        return None
    right = "the pullback is right here, and so are finite differences of it; its own derivative is not"
    if subject.runtime is Runtime.TORCH:
        return (
            f"{right}: autograd takes something in backward for a constant (detach, .data, no_grad, NumPy, or a tensor "
            "that ctx keeps without save_for_backward)"
        )
    if subject.runtime is Runtime.JAX:
        return f"{right}: something in bwd is constant for JAX (stop_gradient, a callback), or has a wrong rule itself"
    return f"{right}: second is not the derivative of backward"
