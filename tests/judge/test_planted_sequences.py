"""Every planted bug in a composite or a layer of sequences dies by its check, with its diagnosis."""

from collections import Counter

import plants_composites  # noqa: F401
import plants_sequences  # noqa: F401
import pytest
from planting import PLANTS

from oracles import Disagreement
from oracles.conformance import search
from oracles.diagnosis import naming

KINDS = {
    *("Residual", "Parallel", "Rowwise", "SequenceNetwork"),
    *("Embedding", "Dropout", "LSTM", "GRU", "MultiHeadAttention"),
}


@pytest.fixture
def patterns(monkeypatch):
    """The ids of what is diagnosed."""
    found, diagnose = [], naming.diagnose

    def noted(symptoms):
        found.append(diagnose(symptoms))
        return found[-1]

    monkeypatch.setattr(naming, "diagnose", noted)
    return found


@pytest.mark.deep
@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: p.name)
def test_planted_bug_is_killed(plant, patterns):
    with pytest.raises(Disagreement) as refused:
        search(plant.planted(), plant.killer, "float64", max_examples=200, seed=0)
    assert refused.value.result.check == plant.killer
    assert refused.value.verdict == "wrong"
    assert refused.value.diagnosis
    # At some smallest points a pattern cannot be confirmed, and none is told; never another one.
    assert (patterns[-1].pattern if patterns else "") in ("", plant.diagnosis)


@pytest.mark.slow
@pytest.mark.parametrize("plant", [p for p in PLANTS if p.silent], ids=lambda p: p.name)
def test_it_is_silent_where_it_says_so(plant):
    tally = search(plant.planted(where=plant.silent), plant.killer, "float64", max_examples=12, seed=0)
    assert sum(tally.examples.values()) > 0


def test_every_layer_has_three_and_one_that_is_silent_at_some_configurations():
    count = Counter(plant.kind for plant in PLANTS)
    assert count.keys() == KINDS
    assert min(count.values()) >= 3
    assert {plant.kind for plant in PLANTS if plant.silent} == KINDS - {"Residual"}  # which has but one
