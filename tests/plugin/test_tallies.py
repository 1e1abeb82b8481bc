"""The user_properties of a search, and the summary of them."""

from dataclasses import replace

from hypothesis import strategies as st

from oracles.options import SearchOptions
from oracles.pytest_items import summary, user_properties
from oracles.search import Search
from oracles.tally import Tally
from oracles.verdict import Finding, Result, Verdict

SEARCH = Search(
    st.nothing(), "cotangents_agree", "float64", "Mine", note="takes no bias", options=SearchOptions(seed=7)
)


def properties(*verdicts, refuses=False, **changes):
    tally = Tally()
    for verdict in verdicts:
        finding = Finding("z", "torch", verdict, refuses, 0.5, 1e-12)
        tally.add(Result("Mine", "cotangents_agree", (finding,)))
    return dict(user_properties(replace(SEARCH, tally=tally, **changes)))


def test_properties_are_plain_values():
    result = properties(Verdict.AGREES, Verdict.AGREES)
    assert {type(value) for value in result.values()} <= {str, int, float}
    assert result == {
        "oracles.layer": "Mine",
        "oracles.property": "cotangents_agree",
        "oracles.dtype": "float64",
        "oracles.verdict": "agrees",
        "oracles.examples": 2,
        "oracles.worst_ratio": 0.5,
        "oracles.detects_above": 1e-12,
        "oracles.vacuous": 0.0,
        "oracles.oracles": "torch",
        "oracles.seed": 7,
        "oracles.note": "takes no bias",
    }


def test_verdicts():
    assert properties()["oracles.verdict"] == "not judged"
    assert properties(Verdict.VACUOUS)["oracles.verdict"] == "vacuous"
    assert properties(Verdict.VACUOUS, Verdict.AGREES)["oracles.verdict"] == "agrees"
    assert properties(Verdict.WRONG, refuses=True)["oracles.verdict"] == "wrong"
    assert properties(Verdict.UNSTABLE, refuses=True)["oracles.verdict"] == "unstable"


def test_left_out_options_are_reported_once():
    lines = summary([properties(Verdict.AGREES), properties(Verdict.AGREES)])
    assert lines.count("Mine: takes no bias") == 1
    assert any(line.startswith("1 judged at 2 points: all agree") for line in lines)


def test_refusals_are_counted():
    lines = summary([properties(Verdict.AGREES), properties(Verdict.WRONG, refuses=True), properties()])
    assert any("1 of 3 tests refused" in line for line in lines)
    assert any(line.split()[:1] == ["Mine"] and " wrong " in line for line in lines)


def test_too_many_inconclusive_points_are_a_warning_where_oracles_judge():
    """Of 9 points, 5 are more than a tenth and the four of one drawn case; 4 are not."""
    verdicts = 5 * [Verdict.VACUOUS] + 4 * [Verdict.AGREES]

    def warned(test):
        return any("inconclusive for Mine" in line for line in summary([test]))

    assert warned(properties(*verdicts))
    assert not warned(properties(*verdicts[1:], Verdict.AGREES))
    assert not warned(properties(*verdicts, property_name="adjoint_of_own_primal"))


def test_no_summary_if_nothing_was_judged():
    assert summary([]) == []
    assert summary([{"oracles.something": "else"}]) == []
