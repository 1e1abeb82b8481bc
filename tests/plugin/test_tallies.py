"""What the summary says of what was seen, refused, blind or left out."""

from dataclasses import replace

from hypothesis import strategies as st

from oracles.options import Options
from oracles.plugin.tallies import properties, summary
from oracles.search import Run, Tally
from oracles.verdict import Finding, Result, Verdict

RUN = Run(st.nothing(), "cotangents_agree", "float64", "Mine", note="takes no bias", options=Options(seed=7))


def seen(*verdicts, refuses=False, **changes):
    tally = Tally()
    for verdict in verdicts:
        finding = Finding("z", "torch", verdict, refuses, 0.5, 1e-12)
        tally.add(Result("Mine", "cotangents_agree", (finding,)))
    return dict(properties(replace(RUN, tally=tally, **changes)))


def test_properties_are_plain_values():
    found = seen(Verdict.AGREES, Verdict.AGREES)
    assert {type(value) for value in found.values()} <= {str, int, float}
    assert found == {
        "oracles.layer": "Mine",
        "oracles.check": "cotangents_agree",
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
    assert seen()["oracles.verdict"] == "not judged"
    assert seen(Verdict.VACUOUS)["oracles.verdict"] == "vacuous"
    assert seen(Verdict.VACUOUS, Verdict.AGREES)["oracles.verdict"] == "agrees"
    assert seen(Verdict.WRONG, refuses=True)["oracles.verdict"] == "wrong"
    assert seen(Verdict.UNSTABLE, refuses=True)["oracles.verdict"] == "unstable"


def test_what_is_left_out_is_said_once():
    lines = summary([seen(Verdict.AGREES), seen(Verdict.AGREES)])
    assert lines.count("Mine: takes no bias") == 1
    assert any(line.startswith("1 judged at 2 points: all agree") for line in lines)


def test_refusals_are_counted():
    lines = summary([seen(Verdict.AGREES), seen(Verdict.WRONG, refuses=True), seen()])
    assert any("1 of 3 tests refused" in line for line in lines)
    assert any(line.split()[:1] == ["Mine"] and " wrong " in line for line in lines)


def test_blind_points_are_warned_of_where_oracles_judge():
    blind = [Verdict.VACUOUS] + 8 * [Verdict.AGREES]
    assert "more than 10% of the points were blind for Mine" in summary([seen(*blind)])
    assert not any("blind for" in line for line in summary([seen(*blind, Verdict.AGREES)]))
    assert not any("blind for" in line for line in summary([seen(*blind, check="adjoint_of_own_primal")]))


def test_nothing_is_said_where_nothing_was_judged():
    assert summary([]) == []
    assert summary([{"oracles.something": "else"}]) == []
