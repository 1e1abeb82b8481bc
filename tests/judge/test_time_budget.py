"""A judgement ends when its time is over, with what is known so far, and never with a verdict on what is not known."""

import time

import numpy as np
import pytest
import torch

import oracles
from oracles.time_budget import OutOfTime, is_out_of_time, require_time, time_budget


def slow_tanh(factor, seconds):
    def forward(z):
        time.sleep(seconds)
        return np.tanh(z), np.tanh(z)

    return oracles.manual(forward, lambda y, delta: {"z": factor * delta * (1 - y * y)}, name="slow tanh")


def slow_reference(seconds):
    def reference(z):
        time.sleep(seconds)
        return torch.tanh(z)

    return oracles.torch_autograd(reference)


POINT = {"z": np.linspace(-2.0, 2.0, 6).reshape(2, 3)}


def test_a_right_subject_agrees_and_the_result_says_what_was_not_done():
    began = time.perf_counter()
    result = oracles.check(slow_tanh(1.0, 0.05), POINT, [slow_reference(0.05)], seconds=0.3)
    assert time.perf_counter() - began < 5
    assert result.verdict is oracles.Verdict.AGREES
    assert sum("out of time" in note for note in result.notes) == 2
    assert "z" in result.judged


def test_an_error_that_could_not_be_decided_is_inconclusive():
    with pytest.raises(oracles.Inconclusive) as undecided:
        oracles.check(slow_tanh(1.01, 0.0), POINT, [slow_reference(0.1)], seconds=0.2)
    assert undecided.value.verdict is oracles.Verdict.VACUOUS


def test_the_same_error_is_refused_in_time():
    with pytest.raises(oracles.Disagreement):
        oracles.check(slow_tanh(1.01, 0.0), POINT, [slow_reference(0.0)], seconds=60.0)


# Where the time ends, and whether the factor of the subject is known by then.
PLACES = {
    "oracles.point.part_of": True,
    "oracles.decision.judge.all_agreements": False,
    "oracles.decision.decisions.is_subgradient": False,
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_known_when_the_time_ends_is_no_verdict(place, monkeypatch):
    def out_of_time(*arguments, **options):
        raise OutOfTime

    monkeypatch.setattr(place, out_of_time)
    with pytest.raises(oracles.Disagreement if PLACES[place] else oracles.Inconclusive):
        oracles.check(slow_tanh(1.01, 0.0), POINT, [slow_reference(0.0)])
    if place != "oracles.decision.judge.all_agreements":
        assert not oracles.check(slow_tanh(1.0, 0.0), POINT, [slow_reference(0.0)]).refuses


def test_finite_differences_stop_in_time():
    began = time.perf_counter()
    with pytest.warns(oracles.InconclusiveWarning, match="of 280 entries of z were not judged"):
        result = oracles.check(slow_tanh(1.0, 0.01), {"z": np.ones((20, 14))}, seconds=0.5)
    judged, entries = result.judged["z"]
    assert 0 < judged < entries
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_budget_is_positive(seconds):
    with pytest.raises(oracles.InvalidInput, match="seconds"):
        oracles.check(slow_tanh(1.0, 0.0), POINT, [slow_reference(0.0)], seconds=seconds)


def test_an_inner_budget_does_not_extend_an_outer_one():
    assert not is_out_of_time()
    with time_budget(1e-9), time_budget(100.0):
        time.sleep(1e-3)
        assert is_out_of_time()
        with pytest.raises(OutOfTime):
            require_time()
    require_time()
