"""A refused cotangent, and the experiments that may be made on it: the same call with another delta, other primals.

A pattern seen once on a small array may be luck. So whatever diagnosis claims must hold again, entry by entry and
within what rounding allows there, at a second random delta, and where that shows nothing new at shuffled primals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from oracles.rule import Array, Enclosure, Primals, Rule, as_tuple, is_differentiable, with_dtype
from oracles.tolerance import named_outputs, tolerance_at

SAMPLES = 5  # of rounding, for each experiment
SEED = 20_111  # no drawn delta of the judge's: a second delta must be another one
PLAUSIBLE = 1 / 8  # a guess farther off than this, in norm, is not worth the cost of a tolerance


@dataclass(frozen=True, eq=False)
class Trial:
    """One call of subject and oracle.

    Attributes:
        got: the subject's answer.
        answers: the oracle's outputs and cotangents by name; ``want`` is the one in question.
        rooms: how far rounding may move each of the answers.
        pull: the oracle's cotangent at these primals for another delta, and how far rounding may move that one.
    """

    name: str
    got: Any
    primals: Primals
    delta: Any
    answers: Mapping[str, Array]
    rooms: Callable[[], Mapping[str, Array]]
    pull: Callable[[Any], tuple[Array, Callable[[], Array]]]

    @property
    def want(self) -> Array:
        """The oracle's answer."""
        return self.answers[self.name]

    @property
    def allowed(self) -> Array:
        """How far rounding may move each entry of ``want``."""
        return self.rooms()[self.name]

    @property
    def error(self) -> Array:
        """What the subject has too much."""
        return np.asarray(self.got - self.want)

    @property
    def wrong(self) -> Array:
        """Where the subject is refused: NaN is, and all of another shape."""
        if np.shape(self.got) != self.want.shape:
            return np.ones(self.want.shape, bool)
        return np.asarray(~(np.abs(self.error) <= self.allowed))

    @property
    def telling(self) -> Array:
        """Where anything is to be seen: the other entries are zero as far as rounding goes."""
        return self.wrong | (np.abs(self.want) > self.allowed)

    @property
    def y(self) -> list[Array]:
        """The oracle's outputs."""
        return [a for n, a in self.answers.items() if n.split("[")[0] == "output"]


Relation: TypeAlias = Callable[[Trial], bool]


def fits(got: Any, want: Array, room: Array) -> bool:
    """Return whether two arrays have one shape and agree within a finite room in every entry; NaN never does."""
    same = np.shape(got) == np.shape(want) and bool(np.all(np.isfinite(room)))
    return same and bool(np.all(np.abs(got - want) <= room))


def spreads(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    """Return whether an array of one shape can be broadcast to another."""
    return len(shape) <= len(over) and all(n in (1, m) for n, m in zip(shape[::-1], over[::-1], strict=False))


def near(got: Array, want: Array) -> bool:
    """Return whether two arrays of one shape are close enough to look closer; no verdict rests on it."""
    return np.shape(got) == np.shape(want) and bool(np.linalg.norm(got - want) <= PLAUSIBLE * np.linalg.norm(got))


@dataclass(frozen=True, eq=False)
class Symptoms:
    """What diagnosis goes by.

    Attributes:
        name: the primal whose cotangent is refused, or "output".
        got: what the subject returned, of any shape; ``None`` where it is missing.
        want, allowed: the oracle's value in float64, and how far rounding may move each entry of it.
        primals, delta: the point, floating arrays in float64.
        subject, oracle: the two rules, to make experiments with.
        primal_agrees: whether the subject's output agreed with the oracle's.
        precision: what the subject computes in.
    """

    name: str
    got: Array | None
    want: Array
    allowed: Array
    primals: Mapping[str, Array]
    delta: Array | tuple[Array, ...]
    subject: Rule
    oracle: Rule
    primal_agrees: bool
    precision: str

    @property
    def is_output(self) -> bool:
        """Whether the forward pass is in question, on which delta has no influence."""
        return self.name.split("[")[0] == "output"

    @cached_property
    def first(self) -> Trial:
        """The refused call itself."""
        trial = self.trial(self.got, self.primals, self.delta)
        rooms = _once(lambda: {**trial.rooms(), self.name: self.allowed})
        return replace(trial, answers={**trial.answers, self.name: self.want}, rooms=rooms)

    @cached_property
    def repeated(self) -> Trial | None:
        """The same call again, on contiguous copies."""
        return self.at(self.primals, self.delta)

    @cached_property
    def other_delta(self) -> Trial | None:
        """The same primals under another, random delta."""
        return self.at(self.primals, self.drawn_delta(0))

    @cached_property
    def shuffled(self) -> Trial | None:
        """The entries of every primal in another order, under yet another delta; lone entries become smaller."""
        rng = np.random.default_rng(SEED + 1)
        moved = {n: _shuffled(np.asarray(a), rng) for n, a in self.primals.items()}
        return self.at(moved, self.drawn_delta(1))

    def always(self, holds: Relation) -> bool:
        """Return whether a relation holds at the refused call and in the experiments that could contradict it."""
        return all(trial is not None and _holds(holds, trial) for trial in self._trials())

    def _trials(self) -> Iterator[Trial | None]:
        yield self.first
        if not self.is_output:
            yield self.other_delta
        if self.is_output or self.want.size == 1 or sum(np.size(d) for d in as_tuple(self.delta)) == 1:
            yield self.shuffled

    def drawn_delta(self, k: int) -> Any:
        """Draw the k-th signed delta in the shape of the given one; the 0-th starts with the opposite sign."""
        rng = np.random.default_rng((SEED, k))
        given = as_tuple(self.delta)
        parts = [np.asarray(rng.standard_normal(np.shape(d))) for d in given]
        if k == 0:
            parts = [-p if p.size and p.flat[0] * np.ravel(d)[0] > 0 else p for p, d in zip(parts, given, strict=True)]
        return tuple(parts) if isinstance(self.delta, tuple) else parts[0]

    def at(self, primals: Primals, delta: Any) -> Trial | None:
        """Call subject and oracle at another point; ``None`` where either raises."""
        dtype = self.got.dtype if self.got is not None and is_differentiable(self.got) else np.dtype(np.float64)
        fed, fed_delta = with_dtype(_copied(primals), dtype), with_dtype(_copied(delta), dtype)
        point, point_delta = with_dtype(_copied(fed), np.float64), with_dtype(_copied(fed_delta), np.float64)
        try:
            with np.errstate(all="ignore"):
                y, pullback = self.subject(**fed)
                got = named_outputs(as_tuple(y), {} if self.is_output else dict(pullback(fed_delta))).get(self.name)
                return self.trial(None if got is None else np.asarray(got, np.float64), point, point_delta)
        except Exception:  # whatever third-party code raises: an experiment that fails shows nothing
            return None

    def trial(self, got: Array | None, primals: Primals, delta: Any) -> Trial:
        """Hold an answer against the oracle's at a point."""
        y, pullback = self.oracle(**primals)
        answers = named_outputs(as_tuple(y), dict(pullback(delta)))

        def rooms(delta: Any, answers: Mapping[str, Any]) -> Mapping[str, Array]:
            moved = tolerance_at([self.oracle], primals, delta, self.precision, fallback=self.subject).estimate(SAMPLES)
            return {n: moved[n] + a.radius if isinstance(a, Enclosure) else moved[n] for n, a in answers.items()}

        def pull(other: Any) -> tuple[Array, Callable[[], Array]]:
            answer = pullback(other)[self.name]
            return _middle(answer), lambda: rooms(other, {self.name: answer})[self.name]

        middles = {n: _middle(a) for n, a in answers.items()}
        return Trial(self.name, got, primals, delta, middles, _once(lambda: rooms(delta, answers)), pull)


def _holds(holds: Relation, trial: Trial) -> bool:
    try:
        with np.errstate(all="ignore"):
            return trial.got is not None and holds(trial)
    except Exception:  # the oracle refuses what the relation asks of it
        return False


def _middle(answer: Any) -> Array:
    return np.asarray(answer.mid if isinstance(answer, Enclosure) else answer, np.float64)


def _copied(tree: Any) -> Any:
    """Copy arrays into fresh contiguous memory: a subject may write into what it is given."""
    if isinstance(tree, Mapping):
        return {n: _copied(a) for n, a in tree.items()}
    return tuple(map(_copied, tree)) if isinstance(tree, tuple) else np.array(tree, order="C", copy=True)


def _shuffled(array: Array, rng: np.random.Generator) -> Array:
    if array.size == 1 and is_differentiable(array):
        return np.asarray(array * 0.75)
    return np.asarray(rng.permutation(array.ravel()).reshape(array.shape))


def _once(f: Callable[[], Mapping[str, Array]]) -> Callable[[], Mapping[str, Array]]:
    """Put off an expensive answer until it is asked for, and remember it."""
    kept: list[Mapping[str, Array]] = []

    def remembered() -> Mapping[str, Array]:
        if not kept:
            kept.append(f())
        return kept[0]

    return remembered
