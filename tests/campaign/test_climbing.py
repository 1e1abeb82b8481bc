"""Points that climb: as many as were asked for, the same for the same seed, towards error / tolerance."""

from math import log10

import pytest
from hypothesis import strategies as st

import oracles
from oracles import search as search_module
from oracles.campaign.engines import ENGINES
from oracles.options import ENGINES as NAMES
from oracles.report.disagreement import Disagreement
from oracles.search import run_search
from oracles.strategies import real, rows


@st.composite
def squares(draw, factor=2.0):
    n = draw(rows())
    subject = oracles.manual(lambda z: (z * z, z), lambda z, delta: {"z": factor * z * delta})
    return oracles.Case(subject, {"z": real(n, 2)})


def searched(**options):
    return run_search(squares(), "cotangents_agree", "float64", against=(), max_examples=8, seed=5, **options)


@pytest.mark.parametrize("climb", [0, 1, 20])
def test_so_many_points_climb(climb):
    assert searched(climb=climb).points == 8 + climb


def test_the_same_seed_climbs_alike():
    first, second = searched(climb=20), searched(climb=20)
    assert first.ratios == second.ratios
    assert first.ratios != searched().ratios


def test_what_is_climbed_is_error_over_tolerance(monkeypatch):
    seen = []
    monkeypatch.setattr(search_module, "target", lambda value, label: seen.append(value))
    tally = searched(climb=20)
    ratios = {log10(ratio) for points in tally.ratios.values() for ratio, _, _ in points if ratio}
    assert 0 < len(seen) <= 20
    assert {value for value in seen if value not in ratios} == set()


def test_a_wrong_gradient_is_refused_where_points_climb():
    cases = squares(factor=2.0 * (1 + 1e-9))
    with pytest.raises(Disagreement):
        run_search(cases, "cotangents_agree", "float64", against=(), max_examples=1, seed=5, climb=20)


def test_engines_have_the_names_of_the_command_line():
    assert tuple(ENGINES) == NAMES
