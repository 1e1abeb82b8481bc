"""Every wrong subject of a planted pair is refused, with its verdict and diagnosis; the right one is accepted."""

import pytest
from planted_bugs.pairs import POINT_PAIRS, SEARCH_PAIRS

from oracles import Disagreement, check
from oracles.diagnosis.diagnose import diagnosis_of
from oracles.search import run_search

POINTS = [pytest.param(pair, marks=pytest.mark.deep if pair.deep else ()) for pair in POINT_PAIRS]
SEARCHES = [
    pytest.param(pair, dtype, marks=pytest.mark.deep if pair.deep else ())
    for pair in SEARCH_PAIRS
    for dtype in pair.dtypes
]
# Many bugs share one right control, which is searched once for all of them.
CONTROLS = {
    (pair.right.name, pair.cases.__module__, pair.cases.__qualname__, pair.refused_by, dtype): (pair, dtype)
    for pair in SEARCH_PAIRS
    for dtype in pair.dtypes
}


def name(part):
    return part if isinstance(part, str) else part.name


def assert_is_refused(refusal, pair):
    assert refusal.verdict == pair.verdict
    if pair.pattern is not None:
        assert diagnosis_of(refusal.result).pattern == pair.pattern, refusal.diagnosis


@pytest.mark.parametrize("pair", POINTS, ids=name)
def test_check_refuses_the_wrong_subject(pair):
    with pytest.raises(Disagreement) as excinfo:
        check(pair.wrong, pair.at, pair.against, **pair.options)
    assert_is_refused(excinfo.value, pair)


@pytest.mark.parametrize("pair", POINTS, ids=name)
def test_check_accepts_the_right_subject(pair):
    assert check(pair.right, pair.at, pair.against, **pair.options).verdict in pair.accepted


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "dtype"), SEARCHES, ids=name)
def test_search_refuses_the_wrong_subject(pair, dtype):
    with pytest.raises(Disagreement) as excinfo:
        run_search(pair.cases(pair.wrong), pair.refused_by, dtype, seed=0)
    assert excinfo.value.result.property_name == pair.refused_by
    assert_is_refused(excinfo.value, pair)


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "dtype"), list(CONTROLS.values()), ids=name)
def test_search_accepts_the_right_subject(pair, dtype):
    assert run_search(pair.cases(pair.right), pair.refused_by, dtype, seed=0).points
