"""A fault of the judge itself is never held against a subject: the others decide, and the fault is named."""

import numpy as np
import pytest
import torch

import oracles
from oracles import InternalError, ReferenceFailed
from oracles.user_code import Raised, attempt, part_of_judge

POINT = {"z": np.random.default_rng(3).standard_normal((2, 2)), "W": np.random.default_rng(4).standard_normal((2, 2))}
FAULTS = [RuntimeError, OverflowError, MemoryError, ZeroDivisionError, AttributeError]


def dense(factor=1.0):
    return oracles.manual(
        lambda z, W: (np.tanh(z @ W), (z, W)),
        lambda c, d: {
            "z": factor * (d * (1 - np.tanh(c[0] @ c[1]) ** 2)) @ c[1].T,
            "W": c[0].T @ (d * (1 - np.tanh(c[0] @ c[1]) ** 2)),
        },
        name="dense",
    )


def affine(z, W):
    return torch.tanh(z @ W)


def in_jax(z, W):
    return jnp.tanh(z @ W)  # noqa: F821


in_jax.__globals__["jnp"] = __import__("jax.numpy").numpy
TORCH, JAX = oracles.torch_autograd(affine), oracles.jax_vjp(in_jax)

# Where the fault is, who judges, and the verdict on the right subject, or the exception.
PLACES = {
    "oracles.exact.ball_arithmetic._evaluate": [TORCH],
    "oracles.exact.ball_arithmetic._enclosure": [TORCH],
    "oracles.exact.ball_arithmetic._rounded_evaluations": [],
    "oracles.exact.ball_arithmetic._evaluate_midpoints": [TORCH],
    "oracles.exact.balls.Tape.sweep": [JAX],
    "oracles.finite_differences._on_a_ladder": [],
    "oracles.finite_differences._Line.first_step": [],
    "oracles.finite_differences.directional_derivative": [],
    "oracles.perturbation.numpy_arrays.perturbed_array": [],
    "oracles.decision.kinks._groups": [TORCH],
    "oracles.decision.decisions.is_subgradient": [TORCH],
    "oracles.decision.decisions.right_up_to": [TORCH],
    "oracles.decision.decisions.formula_is_right": [TORCH],
    "oracles.tolerance.ToleranceEstimator.estimate": [TORCH],
    "oracles.tolerance.ToleranceEstimator._deviation": [JAX],
    "oracles.diagnosis.diagnose.diagnosis_of": [TORCH],
    "oracles.decision.judge.all_agreements": [TORCH],
}


def raising(error):
    def fault(*args, **options):
        raise error("injected")

    return fault


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_of_the_judge_refuses_no_right_subject(place, error, monkeypatch):
    monkeypatch.setattr(place, raising(error))
    result = attempt(lambda: oracles.check(dense(), POINT, PLACES[place]))
    if isinstance(result, Raised):
        assert type(result.error) is InternalError
        assert "injected" in str(result.error)
        assert isinstance(result.error.__cause__, error)
    else:
        assert not result.refuses


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_of_the_judge_accepts_no_wrong_subject_and_is_no_reason(place, error, monkeypatch):
    monkeypatch.setattr(place, raising(error))
    result = attempt(lambda: oracles.check(dense(1.5), POINT, PLACES[place]))
    if not isinstance(result, Raised):
        # Without a framework the last oracle itself may be the one with the fault: then nobody knows anything.
        assert not PLACES[place]
        assert result.verdict != "agrees" or result.notes
    elif isinstance(result.error, oracles.Disagreement):
        assert result.error.result.cause is None
        assert "injected" not in result.error.evidence.reason
    else:
        assert type(result.error) is InternalError
        assert isinstance(result.error.__cause__, error)


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("oracle", [TORCH, JAX])
def test_a_tolerance_that_fails_is_taken_from_the_next_source(oracle, error, monkeypatch):
    broken = oracles.Rule(oracle.evaluate, oracle.name, raising(error), oracle.reference, oracle.runtime)
    result = oracles.check(dense(), POINT, [broken])
    assert result.verdict == "agrees"
    assert any("injected" in note for note in result.notes)
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(dense(1.5), POINT, [broken])
    assert refusal.value.verdict == "wrong"


@pytest.mark.parametrize("error", FAULTS)
def test_a_reference_that_fails_is_named(error):
    broken = oracles.Rule(raising(error), "torch", reference=affine)
    with pytest.raises(ReferenceFailed, match="injected"):
        oracles.check(dense(), POINT, [broken])


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("against", [[TORCH], []])
def test_the_same_exception_of_a_subject_is_a_finding(error, against):
    for subject in (
        oracles.manual(raising(error), lambda c, d: {}),
        oracles.manual(lambda z, W: (z @ W, None), raising(error)),
    ):
        with pytest.raises(oracles.Disagreement) as refusal:
            oracles.check(subject, POINT, against)
        assert f"raised {error.__name__}: injected" in refusal.value.evidence.reason


def test_the_part_is_the_last_module_of_the_judge():
    from oracles.finite_differences import directional_derivative

    rule = oracles.manual(raising(KeyboardInterrupt), lambda c, d: {})
    with pytest.raises(KeyboardInterrupt) as raised:
        directional_derivative(rule, POINT, np.ones((2, 2)), {"z": np.ones((2, 2))})
    assert part_of_judge(raised.value) == ""
    rule = oracles.manual(lambda z, W: (np.ones(3), None), lambda c, d: {})
    with pytest.raises(ValueError, match="broadcast") as raised:
        directional_derivative(rule, POINT, np.ones((2, 2)), {"z": np.ones((2, 2))})
    assert part_of_judge(raised.value) == "oracles.finite_differences"
