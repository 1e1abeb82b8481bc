"""The refused call, the experiments that a diagnosis must survive, and comparisons of arrays within a tolerance.

A pattern that holds once on a small array may be a coincidence. So a diagnosis must hold again, in every entry within
the tolerance there, at a second random delta, and if another delta shows nothing new, at shuffled primals. What is
found is then tried at further points, which have other values, and what a shape explains at other shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from oracles.constants import (
    AS_MANY_DIGITS,
    EXPERIMENT_MARGIN,
    EXPERIMENT_SAMPLES,
    EXPERIMENT_SEED,
    FURTHER_FACTORS,
    FURTHER_POINTS,
    LONE_ENTRY_FACTOR,
    MOST_OTHER_SHAPES,
    MOST_RESHAPED_ENTRIES,
    OTHER_ERRORS,
    ROUGH_AGREEMENT,
    ROUGH_TOLERANCE,
    TERM_UNCERTAINTIES,
    TRIED_SECONDS,
    WHOLE_MARGIN,
)
from oracles.decision.comparison import value_and_radius
from oracles.exact.isolation import is_own_layer
from oracles.forked import survives
from oracles.numerics import NARROW, Numerics
from oracles.rule import (
    Array,
    Cotangents,
    Enclosure,
    Output,
    Primals,
    Pullback,
    Rule,
    Runtime,
    as_tuple,
    is_differentiable,
    is_real,
    with_dtype,
)
from oracles.tolerance import named_outputs, tolerance_at, values_of
from oracles.user_code import Raised, attempt

T = TypeVar("T")
AT_RISK = (Runtime.NUMPY, Runtime.TORCH)  # what calls compiled code in this process, and can be forked


class Expectation(NamedTuple):
    """The oracle's cotangent for some delta, and its tolerance, which is computed when called."""

    value: Array
    tolerance: Callable[[], Array]


@dataclass(frozen=True, eq=False)
class Trial:
    """One call of the subject and of the oracle at the same point.

    Attributes:
        name: the primal whose cotangent is examined, or "output".
        actual: what the subject returned for it.
        primals, delta: the point.
        answers: the oracle's outputs and cotangents by name.
        tolerances: computes the tolerance of each answer.
        pull_back: computes the oracle's cotangent at the same primals for another delta.
        sharp: computes the tolerance of the examined array without jumps over a kink.
    """

    name: str
    actual: Array
    primals: Primals
    delta: Output
    answers: Mapping[str, Array]
    tolerances: Callable[[], Mapping[str, Array]]
    pull_back: Callable[[Output], Expectation]
    sharp: Callable[[], Array] | None = None

    @property
    def expected(self) -> Array:
        """What the oracle returned."""
        return self.answers[self.name]

    @property
    def tolerance(self) -> Array:
        """The tolerance of each entry of ``expected``."""
        return self.tolerances()[self.name]

    @property
    def sharp_tolerance(self) -> Array:
        """The tolerance without jumps: near a kink any error of the entry's own size would fit."""
        return self.tolerance if self.sharp is None else np.minimum(self.sharp(), self.tolerance)

    @property
    def error(self) -> Array:
        """Actual minus expected."""
        return np.asarray(self.actual - self.expected)

    @property
    def wrong(self) -> Array:
        """Mask of the refused entries, which are all of an array of another shape.

        Nothing is known where the oracle has no number, or rounding may move the entry by any amount; NaN and ±Inf are
        refused wherever the oracle has another number.
        """
        if np.shape(self.actual) != self.expected.shape:
            return np.ones(self.expected.shape, bool)
        finite = np.isfinite(self.actual) & np.isfinite(self.expected)
        beyond = np.abs(self.error) > self.tolerance
        return np.asarray(~np.isnan(self.expected) & np.where(finite, beyond, self.actual != self.expected))

    @property
    def informative(self) -> Array:
        """Mask of the entries that can contradict a pattern: wrong ones, and those that rounding cannot make zero."""
        return np.asarray(self.wrong | (np.abs(self.expected) > self.tolerance))

    @property
    def outputs(self) -> list[Array]:
        """The oracle's outputs."""
        return [a for n, a in self.answers.items() if n.split("[")[0] == "output"]

    @property
    def known_arrays(self) -> dict[str, Array]:
        """The arrays that a backward pass has at hand, by what a report calls them."""
        primals = {n: np.asarray(a) for n, a in self.primals.items() if is_differentiable(a)}
        return {**primals, **({"the output": self.outputs[0]} if len(self.outputs) == 1 else {})}

    def reference_counts(self, index: str) -> Array:
        """Return how often an integer primal references each row of ``expected``."""
        rows = len(self.expected)
        return np.bincount(self.primals[index].ravel() % rows, minlength=rows)


Relation: TypeAlias = Callable[[Trial], bool]


def result_or_none(evaluate: Callable[[], T]) -> T | None:
    """Return the result of an evaluation, or ``None`` if it raises."""
    result = attempt(evaluate)
    return None if isinstance(result, Raised) else result


def evaluate(rule: Rule, primals: Primals, delta: Output) -> dict[str, Any]:
    """Return the outputs and cotangents of a rule by name."""
    return values_of(rule.evaluate, primals, delta)


def midpoint(answer: Array | Enclosure) -> Array:
    """Return an oracle's answer in float64, without its radius."""
    return value_and_radius(answer)[0]


@dataclass(frozen=True, eq=False)
class Symptoms:
    """A refused array, and the means to make experiments.

    Attributes:
        name: the primal whose cotangent is refused, or "output".
        actual: what the subject returned, of any shape; ``None`` if it is missing.
        expected, tolerance: the oracle's value in float64, and the tolerance of each entry.
        primals, delta: the point, floating arrays in float64.
        subject, oracle: the two rules.
        primal_agrees: whether the subject's output agrees with the oracle's.
        primal_refused_by: how many oracles refuse the output.
        numerics: what the subject stores, accumulates and multiplies in.
        dtypes: the dtypes in which the subject was given the primals; by default that of the store.
        is_further: whether these are the symptoms at one of the further points of others.
        is_whole: whether these are the symptoms at a large point, of which a part is diagnosed: each experiment would
            take long, so that only the refused call itself must show a pattern again.
        contradicts_itself: whether the gravest finding compares two answers of the subject, and none with an oracle.
    """

    name: str
    actual: Array | None
    expected: Array
    tolerance: Array
    primals: Primals
    delta: Output
    subject: Rule
    oracle: Rule
    primal_agrees: bool
    numerics: Numerics
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    is_further: bool = False
    is_whole: bool = False
    contradicts_itself: bool = False
    primal_refused_by: int = 0

    @property
    def precision(self) -> str:
        """The precision in which the subject stores."""
        return self.numerics.store

    @property
    def margin(self) -> float:
        """The factor of all tolerances at a large point; in 16 bits, errors of some tolerances are gross."""
        return WHOLE_MARGIN if self.is_whole and self.precision not in NARROW else 1.0

    @property
    def is_output(self) -> bool:
        """Whether an output is refused: delta has no influence on it."""
        return self.name.split("[")[0] == "output"

    @property
    def has_expected_shape(self) -> bool:
        """Whether the subject returned an array of the expected shape."""
        return self.actual is not None and self.actual.shape == self.expected.shape

    @cached_property
    def refusal(self) -> Trial:
        """The refused call itself.

        Raises:
            ValueError: if the subject returned nothing.
        """
        if self.actual is None:
            raise ValueError(f"refusal: expected an array for {self.name}, got none")
        trial = self.compare(self.actual, self.primals, self.delta)
        tolerances = cache(lambda: {**trial.tolerances(), self.name: self.tolerance})
        return replace(trial, answers={**trial.answers, self.name: self.expected}, tolerances=tolerances)

    @cached_property
    def repetition(self) -> Trial | None:
        """The same call again, on contiguous copies."""
        return self.evaluate_at(self.primals, self.delta)

    @cached_property
    def other_delta(self) -> Trial | None:
        """The same primals with another, random delta."""
        return self.evaluate_at(self.primals, self.draw_delta(0))

    @cached_property
    def shuffled_primals(self) -> Trial | None:
        """The entries of every primal in another order, with a third delta; lone entries become smaller."""
        rng = np.random.default_rng(EXPERIMENT_SEED + 1)
        primals = {n: _shuffle(np.asarray(a), rng) for n, a in self.primals.items()}
        return self.evaluate_at(primals, self.draw_delta(1))

    @cached_property
    def shrinks_in_float64(self) -> bool:
        """Whether the subject errs far less when it is fed with float64: it rounds in the precision that it gets."""
        if self.precision == "float64" or not self.has_expected_shape:
            return False
        dtypes = {n: np.dtype(np.float64) for n, a in self.primals.items() if is_differentiable(a)}
        wide = replace(self, dtypes={**self.dtypes, **dtypes}, numerics=Numerics.of("float64"))
        trial = wide.evaluate_at(self.primals, self.delta)
        if trial is None or np.shape(trial.actual) != self.expected.shape:
            return False
        wrong = self.refusal.wrong
        own, finer = (float(np.linalg.norm(error[wrong])) for error in (self.refusal.error, trial.error))
        return bool(np.isfinite(own)) and finer < AS_MANY_DIGITS * own

    @cached_property
    def further(self) -> list[Symptoms]:
        """The symptoms at points of other values and with other deltas, where the subject is wrong too."""
        return [symptoms for symptoms in self._elsewhere if np.any(symptoms.refusal.wrong)]

    @property
    def can_be_moved(self) -> bool:
        """Whether subject and oracle have a value at any point of other values."""
        return bool(self._elsewhere)

    @cached_property
    def _elsewhere(self) -> list[Symptoms]:
        """Points of other values, half of them with the values in another order."""
        count = 0 if self.is_further or self.is_whole else FURTHER_POINTS
        found = (self._symptoms_at(k) for k in range(count))
        return [symptoms for symptoms in found if symptoms is not None]

    def _symptoms_at(self, k: int) -> Symptoms | None:
        rng = np.random.default_rng((EXPERIMENT_SEED, 100 + k))
        primals = {n: _other_values(np.asarray(a), rng, shuffled=k % 2 == 1) for n, a in self.primals.items()}
        trial = self.evaluate_at(primals, self.draw_delta(2 + k))
        if trial is None or not np.all(np.isfinite(trial.expected)) or trial.expected.shape != self.expected.shape:
            return None
        return replace(
            self,
            actual=trial.actual,
            expected=trial.expected,
            tolerance=trial.tolerance,
            primals=trial.primals,
            delta=trial.delta,
            is_further=True,
        )

    @cached_property
    def other_shapes(self) -> list[Trial]:
        """Calls with some axes longer: all of one extent together, else one alone; only where both accept that."""
        locations = [(n, axis) for n, a in self.primals.items() for axis in range(np.ndim(a))]
        by_extent: dict[int, list[tuple[str, int]]] = {}
        for name, axis in locations:
            by_extent.setdefault(np.shape(self.primals[name])[axis], []).append((name, axis))
        groups = [group for n, group in by_extent.items() if n > 0]
        # Axes may have one extent by chance, so each is tried alone, and all others of the extent without it.
        alone = [[location] for group in groups if len(group) > 1 for location in group]
        others = [[b for b in group if b != a] for group in groups if len(group) > 2 for a in group]
        found = (self._reshaped(k, axes) for k, axes in enumerate((groups + alone + others)[:MOST_OTHER_SHAPES]))
        return [trial for trial in found if trial is not None]

    def _reshaped(self, k: int, axes: list[tuple[str, int]]) -> Trial | None:
        rng = np.random.default_rng((EXPERIMENT_SEED, 200 + k))
        # Some layers take multiples of a number only, and twice an extent is one.
        for twice in (False, True):
            primals = {n: np.asarray(a) for n, a in self.primals.items()}
            for name, axis in axes:
                rest = primals[name] if twice else primals[name].take([-1], axis)
                primals[name] = np.concatenate([primals[name], rest], axis)
            if sum(a.size for a in primals.values()) > MOST_RESHAPED_ENTRIES:
                return None
            primals = {n: _other_values(a, rng, shuffled=False) for n, a in primals.items()}
            trial = result_or_none(partial(self._evaluate_in_shape, primals, k))
            if trial is not None and np.shape(trial.actual) == trial.expected.shape and np.any(trial.informative):
                return trial
        return None

    def _evaluate_in_shape(self, primals: Primals, k: int) -> Trial | None:
        return self.evaluate_in_shape(primals, partial(self.draw_delta, 2 + k))

    def evaluate_in_shape(self, primals: Primals, draw: Callable[[Output], Output]) -> Trial | None:
        """Call the subject and the oracle at primals of another shape, of which nobody says that they take them.

        Compiled code may end the process at such a shape, and a framework's too, so a copy of the process does it first
        (not on JAX, whose threads a copy lacks, and not for code that runs in a process of its own).

        Args:
            primals: the primals.
            draw: returns a delta like an output of the oracle.
        """
        at_risk = [r for r in (self.subject, self.oracle) if r.runtime in AT_RISK and not is_own_layer(r)]
        # Finite differences evaluate the subject.
        at_risk = [r for r in at_risk if r is self.subject or r.evaluate_perturbed is not None]

        def evaluate_all() -> None:
            given, delta = self.as_given(primals, draw(self._output_at(primals)))
            for rule in at_risk:
                result_or_none(partial(evaluate, rule, given, delta))

        if at_risk and not survives(evaluate_all, TRIED_SECONDS):
            return None
        return self.evaluate_at(primals, draw(self._output_at(primals)))

    def _output_at(self, primals: Primals) -> Output:
        y, _ = self.oracle(**primals)
        return y if isinstance(self.delta, tuple) else as_tuple(y)[0]

    def always(self, relation: Relation) -> bool:
        """Return whether a relation holds at the refused call and in every experiment that could contradict it.

        A relation that the tolerance alone explains confirms nothing.
        """
        return self.in_all_trials(relation) and depends_on_error(relation, self.refusal)

    def in_all_trials(self, relation: Relation) -> bool:
        """Return whether a relation holds in all these trials: one that does not depend on the size of the error."""
        return all(trial is not None and _holds(relation, trial) for trial in self._trials())

    def _trials(self) -> Iterator[Trial | None]:
        # The refused call costs nothing more, and excludes most patterns at once.
        yield self.refusal
        if self.is_whole:
            return
        if not self.is_output:
            yield self.other_delta
        # An output does not depend on delta, and a single number times another delta may show the same factor again.
        if self.is_output or self.expected.size == 1 or sum(np.size(d) for d in as_tuple(self.delta)) == 1:
            yield self.shuffled_primals

    def draw_delta(self, k: int, like: Output | None = None) -> Output:
        """Draw the k-th random delta in the shape of the refused one; the 0-th starts with the opposite sign."""
        rng = np.random.default_rng((EXPERIMENT_SEED, k))
        refused = as_tuple(self.delta if like is None else like)
        parts = [np.asarray(rng.standard_normal(np.shape(d))) for d in refused]
        if k == 0:  # an absolute value or a clipping at zero shows only if some sign changes
            parts = [
                -p if p.size and p.flat[0] * np.ravel(d)[0] > 0 else p for p, d in zip(parts, refused, strict=True)
            ]
        return tuple(parts) if isinstance(self.delta, tuple) else parts[0]

    def evaluate_at(self, primals: Primals, delta: Output) -> Trial | None:
        """Call the subject and the oracle at another point; ``None`` if either raises, or no real numbers return."""
        return result_or_none(lambda: self._evaluate(primals, delta))

    def _evaluate(self, primals: Primals, delta: Output) -> Trial | None:
        primals, delta = self.as_given(primals, delta)
        # The oracle gets copies made before the call: the subject may write into its arguments.
        point = with_dtype(_contiguous_copy(primals), np.float64)
        point_delta = with_dtype(_contiguous_copy(delta), np.float64)
        y, pullback = self.subject(**primals)
        cotangents: Cotangents = {} if self.is_output else dict(pullback(delta))
        actual = named_outputs(as_tuple(y), cotangents).get(self.name)
        if actual is None or not is_real(actual):
            return None
        return self.compare(np.asarray(actual, np.float64), point, point_delta)

    def as_given(self, primals: Primals, delta: Output) -> tuple[Primals, Output]:
        """Return contiguous copies of a point in the dtypes of the refused call: the subject may accept no others."""
        given = {n: with_dtype(a, self._dtype_of(n)) for n, a in _contiguous_copy(primals).items()}
        return given, with_dtype(_contiguous_copy(delta), self._dtype_of_delta)

    def _dtype_of(self, name: str) -> np.dtype[Any]:
        return self.dtypes.get(name, np.dtype(self.precision))

    @property
    def _dtype_of_delta(self) -> np.dtype[Any]:
        # Adapters take delta in the dtype of the output, which is that of the floating primals.
        dtypes = [d for d in self.dtypes.values() if is_differentiable(np.zeros(0, d))]
        return np.dtype(np.result_type(*dtypes) if dtypes else self.precision)

    def compare(self, actual: Array, primals: Primals, delta: Output) -> Trial:
        """Evaluate the oracle at a point, and compare an array with its answer."""
        y, pullback = self.oracle(**primals)  # the pullback is kept: it is asked about many other deltas
        answers = named_outputs(as_tuple(y), dict(pullback(delta)))
        return Trial(
            self.name,
            actual,
            primals,
            delta,
            {n: midpoint(a) for n, a in answers.items()},
            cache(partial(self._tolerances_of_point, primals, delta, answers)),
            partial(self._pull_back, pullback, primals),
            cache(partial(self._tolerance_without_jumps, primals, delta)),
        )

    def _tolerances_of_point(self, primals: Primals, delta: Output, answers: Mapping[str, Any]) -> Mapping[str, Array]:
        tolerances = self._tolerances(primals, delta, answers)
        return {n: self.margin * t for n, t in tolerances.items()}

    def _tolerances(self, primals: Primals, delta: Output, answers: Mapping[str, Any]) -> Mapping[str, Array]:
        estimator = tolerance_at([self.oracle], primals, delta, self.numerics, fallback=self.subject)
        estimate = {n: EXPERIMENT_MARGIN * a for n, a in estimator.estimate(EXPERIMENT_SAMPLES).items()}
        # The oracle may have a cotangent that the source of the tolerance lacks: of a jvp alone nothing is pulled back.
        unknown = {n: np.full(np.shape(midpoint(a)), np.inf) for n, a in answers.items() if n not in estimate}
        estimate |= unknown
        return {n: estimate[n] + a.radius if isinstance(a, Enclosure) else estimate[n] for n, a in answers.items()}

    def _tolerance_without_jumps(self, primals: Primals, delta: Output) -> Array:
        """Return how far rounding in the backward alone moves an entry that jumps, and no bound on the others."""
        estimator = tolerance_at([self.oracle], primals, delta, self.numerics, fallback=self.subject)
        backward = EXPERIMENT_MARGIN * self.margin * estimator.backward_tolerance(self.name)
        return np.where(estimator.jumping(self.name), backward, np.inf)

    def _pull_back(self, pullback: Pullback, primals: Primals, delta: Output) -> Expectation:
        answer = pullback(delta)[self.name]
        return Expectation(midpoint(answer), lambda: self._tolerances(primals, delta, {self.name: answer})[self.name])


def depends_on_error(relation: Relation, trial: Trial) -> bool:
    """Return whether a relation of the subject's answer no longer holds of an answer of another error.

    A relation that holds with half the error, or with half as much again, has a tolerance that is too wide for it: it
    says nothing about the error. No tolerance explains NaN, an infinity or another shape.
    """
    if np.shape(trial.actual) != trial.expected.shape or not np.any(trial.wrong & np.isfinite(trial.actual)):
        return True
    error = np.where(np.isfinite(trial.error), trial.error, 0.0)
    others = (replace(trial, actual=trial.actual + change * error) for change in OTHER_ERRORS)
    return not any(_holds(relation, other) for other in others)


def _holds(relation: Relation, trial: Trial) -> bool:
    return bool(result_or_none(lambda: relation(trial)))


def _contiguous_copy(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {n: _contiguous_copy(a) for n, a in tree.items()}
    return tuple(map(_contiguous_copy, tree)) if isinstance(tree, tuple) else np.array(tree, order="C", copy=True)


def _shuffle(array: Array, rng: np.random.Generator) -> Array:
    if array.size == 1 and is_differentiable(array):
        return np.asarray(array * LONE_ENTRY_FACTOR)
    return np.asarray(rng.permutation(array.ravel()).reshape(array.shape))


def _other_values(array: Array, rng: np.random.Generator, shuffled: bool) -> Array:
    """Return other values in the same domain: smaller by random factors, in the same order or another."""
    moved = np.asarray(rng.permutation(array.ravel()).reshape(array.shape)) if shuffled else array
    return np.asarray(moved * rng.uniform(*FURTHER_FACTORS, array.shape)) if is_differentiable(array) else moved


Axes = tuple[int, ...]


def agrees(actual: Array, expected: Array, tolerance: Array) -> bool:
    """Return whether two arrays have one shape and agree in every entry within a finite tolerance; NaN never does."""
    comparable = np.shape(actual) == np.shape(expected) and bool(np.all(np.isfinite(tolerance)))
    return comparable and bool(np.all(np.abs(actual - expected) <= tolerance))


def roughly_agrees(actual: Array, expected: Array, similar_tolerance: Array | None = None) -> bool:
    """Return whether two arrays of one shape are so close that their tolerance is worth computing.

    Args:
        actual, expected: the arrays.
        similar_tolerance: a tolerance of another array of this size, if there is one.
    """
    if np.shape(actual) != np.shape(expected):
        return False
    most = ROUGH_AGREEMENT * float(np.linalg.norm(actual))
    if similar_tolerance is not None and np.all(np.isfinite(similar_tolerance)):
        most = min(most, ROUGH_TOLERANCE * float(np.linalg.norm(similar_tolerance)))
    return bool(np.linalg.norm(actual - expected) <= most)


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether an array of one shape can be broadcast to another shape."""
    return len(shape) <= len(target) and all(n in (1, m) for n, m in zip(shape[::-1], target[::-1], strict=False))


def spread_over(array: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast an array over a shape; axes that it lacks are added at the end, or else at the front.

    If it fits neither way (a mask of attention scores, say), its largest entry stands for all of it.
    """
    if array.shape == shape[: array.ndim]:
        return np.broadcast_to(array.reshape(*array.shape, *(1,) * (len(shape) - array.ndim)), shape)
    fits = broadcasts_to(array.shape, shape)
    return np.broadcast_to(array if fits else array.max(initial=array.dtype.type(0)), shape)


def least_squares_factor(
    actual: Array, along: Array, tolerance: Array, axes: Axes | None = None
) -> tuple[Array, Array]:
    """Return k with ``actual ≈ k·along``, and how far the tolerance of ``actual`` may move k.

        k = Σ actual·along / Σ along²        uncertainty = Σ tolerance·|along| / Σ along²

    Args:
        actual, along, tolerance: arrays of one shape.
        axes: the axes of the sums, which gives one k for each slice along the others; ``None`` gives one k for all.
    """
    keepdims = axes is not None
    square = np.sum(along * along, axis=axes, keepdims=keepdims)
    k = np.sum(actual * along, axis=axes, keepdims=keepdims) / square
    return k, np.sum(tolerance * np.abs(along), axis=axes, keepdims=keepdims) / square


def added_factor(error: Array, along: Array, tolerance: Array) -> tuple[Array, Array] | None:
    """Return k with ``error ≈ k·along`` and its uncertainty; ``None`` if the tolerance may have made half of k.

    Along an array that is large against the tolerance any error is nearly k·along, with a tiny k.
    """
    k, uncertainty = least_squares_factor(error, along, tolerance)
    return (k, uncertainty) if np.abs(k) > TERM_UNCERTAINTIES * uncertainty else None


def axis_subsets(ndim: int) -> list[Axes]:
    """Return every set of at least one axis, the small ones first."""
    return [axes for k in range(1, ndim + 1) for axes in combinations(range(ndim), k)]


def axes_text(axes: Axes) -> str:
    """Return "axis 0" or "axes 0, 1"."""
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"
