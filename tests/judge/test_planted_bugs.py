"""The judge can see: every planted bug dies by the check named beside it, and every check has one to kill."""

import pytest
from plants import PLANTS

from oracles import Disagreement
from oracles.checks import CHECKS
from oracles.conformance import search

EXAMPLES = 60


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: f"{p.name}-by-{p.killer}")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_planted_bug_is_killed(plant, dtype):
    if plant.name == "gradient_always_in_float64" and dtype == "float64":
        dtype = "float32"  # it is no bug in float64
    with pytest.raises(Disagreement) as refused:
        search(plant.planted(), plant.killer, dtype, max_examples=EXAMPLES, seed=0)
    assert refused.value.result.check == plant.killer
    assert refused.value.verdict in ("wrong", "kink", "unstable")
    assert len(str(refused.value).splitlines()) <= 25


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: p.name)
def test_without_the_bug_the_same_check_passes(plant):
    tally = search(plant.sound(), plant.killer, "float32", max_examples=EXAMPLES, seed=0)
    assert sum(tally.examples.values()) >= EXAMPLES / 2


def test_every_check_has_a_planted_bug():
    assert {p.killer for p in PLANTS} == set(CHECKS)


def test_a_failing_example_shrinks_to_the_smallest():
    by_name = {p.name: p for p in PLANTS}
    plant = by_name["bias_gradient_not_summed_over_the_batch"]
    with pytest.raises(Disagreement) as refused:
        search(plant.planted(), plant.killer, "float64", max_examples=EXAMPLES, seed=0)
    assert refused.value.evidence.reason in ("shape (2, 1), expected (1, 1)", "shape (0, 1), expected (1, 1)")
