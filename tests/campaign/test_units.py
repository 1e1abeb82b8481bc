"""A plan lists units that nobody writes down: the n-th one follows from n, its key from what it depends on."""

import json
from dataclasses import replace

import pytest
from campaigns import PLAN

from oracles.campaign.units import Plan, Searched


def test_first_stored_examples_then_blocks_of_seeds_of_each_search_in_turn():
    units = [PLAN.unit(number) for number in range(9)]
    assert [unit.kind for unit in units] == ["replay"] * 3 + ["search"] * 6
    assert [unit.seeds for unit in units] == [()] * 3 + [(0, 1)] * 3 + [(2, 3)] * 3
    assert [unit.searched for unit in units] == [*PLAN.searches] * 3


def test_units_of_a_plan_are_counted():
    assert PLAN.units == 3 * 5
    assert replace(PLAN, rounds=None).units is None


def test_keys_differ():
    keys = [PLAN.unit(number).key for number in range(PLAN.units)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "change",
    [
        {"code": "b" * 32},
        {"points": 31},
        {"climb": 1},
        {"tiles": (64,)},
        {"against": ("torch",)},
        {"seed": 1},
        {"block": 3},
    ],
)
def test_the_key_depends_on_what_the_result_depends_on(change):
    assert replace(PLAN, **change).unit(4).key != PLAN.unit(4).key


def test_the_key_does_not_depend_on_the_other_searches():
    other = replace(PLAN, searches=(Searched("Tanh", "primal_agrees", "float64"), *PLAN.searches), folder="/elsewhere")
    assert other.unit(5).searched == PLAN.unit(3).searched
    assert other.unit(5).key == PLAN.unit(3).key


def test_more_rounds_are_the_same_campaign_and_other_layers_are_another():
    assert replace(PLAN, rounds=None).name == replace(PLAN, rounds=100).name == PLAN.name
    assert replace(PLAN, searches=PLAN.searches[:1]).name != PLAN.name


def test_a_plan_survives_json():
    plan = replace(PLAN, cases=("my.cases",), tiles=(64, 128), folder="/a", against=("torch",), rounds=None)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
