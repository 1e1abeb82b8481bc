"""Every planted bug is refused by its property and diagnosed as declared; the correct operation is not refused."""

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


def parametrize(bugs):
    return pytest.mark.parametrize("bug", bugs, ids=name)


def result_at(case, dtype, seed, *, by=""):
    """Return the judge's result at one point; if the judge refuses nothing, the result of the property ``by``."""
    point, oracles = point_at(case.subject, case.primals, dtype, seed=seed), case.oracles()
    if by != "primal_agrees":
        result = judge(case.subject, point.primals, point.delta, oracles, kinks="declared")
        if result.refuses or not by:
            return result
    return PROPERTIES[by](case, point, oracles)


@pytest.mark.parametrize(("bug", "dtype"), SEARCHES, ids=name)
def test_search_refuses_the_bug(bug, dtype):
    with pytest.raises(Disagreement) as excinfo:
        run_search(bug.cases_with_bug(), bug.refused_by, dtype, max_examples=EXAMPLES, seed=0)
    assert excinfo.value.result.property_name == bug.refused_by
    assert excinfo.value.verdict == bug.verdict
    assert excinfo.value.diagnosis
    assert len(str(excinfo.value).splitlines()) <= 25


@pytest.mark.slow
@parametrize(BUGS)
def test_diagnosis_names_the_pattern(bug):
    wrong = result_at(bug.with_bug(bug.example), bug.dtypes[0], 5, by=bug.refused_by)
    assert wrong.refuses
    assert diagnosis_of(wrong).pattern in (bug.pattern, *bug.acceptable)
    assert not result_at(bug.example, bug.dtypes[0], 5).refuses


@parametrize([bug for bug in BUGS if bug.silent])
def test_judge_accepts_the_bug_at_its_silent_case(bug):
    """A test of that case alone would not notice the bug."""
    assert not any(result_at(bug.with_bug(bug.silent), "float64", seed).refuses for seed in range(1, 6))


def options(kind):
    return {name for name, p in signature(kind).parameters.items() if p.default is not p.empty}


def has_default_options(operation):
    """Return whether all options of an operation have their default values."""
    arguments = []
    for name, p in signature(type(operation)).parameters.items():
        if name not in options(type(operation)):
            arguments += getattr(operation, name) if p.kind is p.VAR_POSITIONAL else [getattr(operation, name)]
    return operation == type(operation)(*arguments)


def test_every_operation_has_three_bugs_and_one_that_default_options_hide():
    kinds = {e.layer_type for e in entries() if e.module.startswith("oracles.references.")}
    count = Counter(bug.layer_type for bug in BUGS)
    assert count.keys() == kinds
    assert min(count.values()) >= 3
    silent = {bug.layer_type for bug in BUGS if bug.silent and has_default_options(bug.silent.subject.implementation)}
    assert {kind for kind in kinds if options(kind)} <= silent


def test_quick_bugs_cover_every_property():
    assert {bug.refused_by for bug in BUGS if bug.quick} == set(PROPERTIES)


def test_failing_example_shrinks_to_the_smallest():
    bug = next(bug for bug in BUGS if bug.name == "bias_gradient_not_summed_over_the_batch")
    with pytest.raises(Disagreement) as excinfo:
        run_search(bug.cases_with_bug(), bug.refused_by, "float64", max_examples=EXAMPLES, seed=0)
    assert excinfo.value.evidence.reason in ("shape (2, 1), expected (1, 1)", "shape (0, 1), expected (1, 1)")
