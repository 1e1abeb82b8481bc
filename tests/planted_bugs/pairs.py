"""Pairs of a wrong subject and its right control, of any adapter: at one point, or in a search.

The bugs of `planting` are operations of manual_bp with one thing wrong; these are subjects as users bring them.
A module of this folder plants its pairs when it is imported; tests/test_planted_pairs.py judges both subjects of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from oracles import Case, Rule

Cases = st.SearchStrategy[Case]


@dataclass(frozen=True)
class PointPair:
    """A wrong and a right subject, judged by `oracles.check` at one point.

    Attributes:
        name: the bug's name.
        wrong, right: the subjects.
        at: the primals.
        against: the oracles; none where the judge has no reference.
        verdict: the verdict on the wrong subject.
        pattern: the id of the diagnosis; None where the test does not ask for one, "" where there must be none.
        accepted: the verdicts that the right subject may get.
        options: further arguments of `oracles.check`.
        deep: whether the pair is judged only where all that takes long runs.
    """

    name: str
    wrong: Rule
    right: Rule
    at: Mapping[str, Any]
    against: Sequence[Rule] = ()
    verdict: str = "wrong"
    pattern: str | None = None
    accepted: tuple[str, ...] = ("agrees",)
    options: Mapping[str, Any] = field(default_factory=dict)
    deep: bool = False


@dataclass(frozen=True)
class SearchPair:
    """A wrong and a right subject, each judged by a search with its default number of examples.

    Attributes:
        name: the bug's name.
        wrong, right: the subjects.
        cases: makes the strategy of cases of a subject.
        refused_by: the property that refuses the wrong subject.
        dtypes: the dtypes in which the search must refuse it.
        verdict, pattern, deep: as in `PointPair`.
    """

    name: str
    wrong: Rule
    right: Rule
    cases: Callable[[Rule], Cases]
    refused_by: str = "cotangents_agree"
    dtypes: tuple[str, ...] = ("float64",)
    verdict: str = "wrong"
    pattern: str | None = None
    deep: bool = False


POINT_PAIRS: list[PointPair] = []
SEARCH_PAIRS: list[SearchPair] = []


def at_point(
    name: str, wrong: Rule, right: Rule, at: Mapping[str, Any], against: Sequence[Rule] = (), **rest: Any
) -> None:
    """Plant a bug that `oracles.check` refuses at one point."""
    POINT_PAIRS.append(PointPair(name, wrong, right, at, tuple(against), **rest))


def in_search(name: str, wrong: Rule, right: Rule, cases: Callable[[Rule], Cases], **rest: Any) -> None:
    """Plant a bug that a search refuses."""
    SEARCH_PAIRS.append(SearchPair(name, wrong, right, cases, **rest))
