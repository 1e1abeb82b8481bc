"""Every planted bug is refused by its property and diagnosed as declared; the right operation is not refused."""

from collections import Counter
from inspect import signature

import pytest
from planted_bugs.planting import BUGS

from oracles import Disagreement
from oracles.decision.judge import judge
from oracles.diagnosis.diagnose import diagnosis_of
from oracles.properties import PROPERTIES
from oracles.registry import entries
from oracles.search import run_search
from oracles.strategies import point_at

EXAMPLES = 240
QUICK = [(bug, dtype) for bug in BUGS if bug.quick for dtype in bug.dtypes]
SEARCHES = [
    *(pytest.param(*each, marks=() if each[1] == each[0].dtypes[0] else pytest.mark.slow) for each in QUICK),
    *(pytest.param(bug, bug.dtypes[0], marks=pytest.mark.deep) for bug in BUGS if not bug.quick),
]


def name(part):
    return part if isinstance(part, str) else f"{part.cases}-{part.name}"


def of_each(bugs):
    return pytest.mark.parametrize("bug", bugs, ids=name)


def judged(case, dtype, seed, *, by=""):
    """Return the result of the judge at one point, or of the property ``by`` where the judge refuses nothing."""
    point, oracles = point_at(case.subject, case.primals, dtype, seed=seed), case.oracles()
    if by != "primal_agrees":
        result = judge(case.subject, point.primals, point.delta, oracles, kinks="declared")
        if result.refuses or not by:
            return result
    return PROPERTIES[by](case, point, oracles)


@pytest.mark.parametrize(("bug", "dtype"), SEARCHES, ids=name)
def test_it_is_refused(bug, dtype):
    with pytest.raises(Disagreement) as refused:
        run_search(bug.planted(), bug.refused_by, dtype, max_examples=EXAMPLES, seed=0)
    assert refused.value.result.property_name == bug.refused_by
    assert refused.value.verdict == bug.verdict
    assert refused.value.diagnosis
    assert len(str(refused.value).splitlines()) <= 25


@pytest.mark.slow
@of_each(BUGS)
def test_it_is_diagnosed(bug):
    wrong = judged(bug.spoilt(bug.shown), bug.dtypes[0], 5, by=bug.refused_by)
    assert wrong.refuses
    assert diagnosis_of(wrong).pattern == bug.pattern
    assert not judged(bug.shown, bug.dtypes[0], 5).refuses


@of_each([bug for bug in BUGS if bug.silent])
def test_it_is_silent_where_it_says_so(bug):
    """What is tested there alone, passes."""
    assert not any(judged(bug.spoilt(bug.silent), "float64", seed).refuses for seed in range(1, 6))


def options(kind):
    return {name for name, p in signature(kind).parameters.items() if p.default is not p.empty}


def as_it_comes(operation):
    """Whether all options of an operation are as they are by default."""
    given = []
    for name, p in signature(type(operation)).parameters.items():
        if name not in options(type(operation)):
            given += getattr(operation, name) if p.kind is p.VAR_POSITIONAL else [getattr(operation, name)]
    return operation == type(operation)(*given)


def test_every_operation_has_three_and_one_that_is_silent_as_it_comes():
    kinds = {e.layer_type for e in entries() if e.module.startswith("oracles.references.")}
    count = Counter(bug.of for bug in BUGS)
    assert count.keys() == kinds
    assert min(count.values()) >= 3
    silent = {bug.of for bug in BUGS if bug.silent and as_it_comes(bug.silent.subject.implementation)}
    assert {kind for kind in kinds if options(kind)} <= silent


def test_every_property_has_one_in_every_run():
    assert {bug.refused_by for bug in BUGS if bug.quick} == set(PROPERTIES)


def test_a_failing_example_shrinks_to_the_smallest():
    bug = next(bug for bug in BUGS if bug.name == "bias_gradient_not_summed_over_the_batch")
    with pytest.raises(Disagreement) as refused:
        run_search(bug.planted(), bug.refused_by, "float64", max_examples=EXAMPLES, seed=0)
    assert refused.value.evidence.reason in ("shape (2, 1), expected (1, 1)", "shape (0, 1), expected (1, 1)")
