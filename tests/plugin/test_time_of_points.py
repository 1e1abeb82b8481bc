"""Each point of a search has a time budget: what no time is left for is inconclusive, and never refused."""

import time

import numpy as np
import pytest
from hypothesis import strategies as st

import oracles
from oracles.options import SearchOptions
from oracles.pytest_items import summary, user_properties
from oracles.search import Search, run_search
from oracles.strategies import real
from oracles.time_budget import OutOfTime
from oracles.verdict import SELF_CONSISTENCY


def cases(factor=1.0, seconds=0.0):
    """Cases of tanh: the cotangent is off by a factor, and each forward takes so long."""

    def forward(z):
        time.sleep(seconds)
        return np.tanh(z), np.tanh(z)

    def backward(y, delta):
        return {"z": factor * delta * (1 - y * y)}

    return st.just(oracles.Case(oracles.manual(forward, backward, name="tanh"), {"z": real(2, 3)}))


@pytest.mark.parametrize("name", ["cotangents_agree", "same_every_time"])
def test_a_point_that_runs_out_of_time_is_counted_and_not_refused(name):
    tally = run_search(cases(seconds=0.01), name, "float64", max_examples=3, seed=0, seconds=0.005)
    assert tally.out_of_time == tally.points == 3
    assert set(tally.verdicts.values()) <= {oracles.Verdict.AGREES}


def test_an_error_in_time_is_refused_and_shrunk_without_a_budget():
    with pytest.raises(oracles.Disagreement) as refusal:
        run_search(cases(1.01), "cotangents_agree", "float64", max_examples=4, seed=0, seconds=60.0)
    assert refusal.value.verdict is oracles.Verdict.WRONG


def test_time_that_ends_between_two_calls_leaves_the_point_inconclusive(monkeypatch):
    def out_of_time(*arguments, **options):
        raise OutOfTime

    monkeypatch.setattr("oracles.properties.check_repeatability", out_of_time)
    tally = run_search(cases(), "same_every_time", "float64", max_examples=3, seed=0)
    assert tally.vacuous == {SELF_CONSISTENCY: 3}


@pytest.mark.parametrize(("seconds", "late"), [(1, 2), (None, None)])
def test_the_option_reaches_the_search_and_the_summary(seconds, late, monkeypatch):
    monkeypatch.setattr("oracles.search.is_out_of_time", lambda: seconds is not None)
    options = SearchOptions(max_examples=2, seed=0, seconds=seconds)
    search = Search(cases(), "primal_agrees", "float64", "Mine", options=options)
    search()
    properties = dict(user_properties(search))
    assert properties.get("oracles.out_of_time") == late
    assert sum("out of time" in line for line in summary([properties])) == bool(late)
