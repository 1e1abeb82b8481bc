"""Certified enclosures: a rule's own NumPy primal, evaluated on balls, encloses its exact derivative.

No framework and no hand-written backward takes part, only the formulas that the forward evaluates. The precision is
raised until every enclosure is narrow. What stays undecided raises `NotPerturbable`.

A second evaluation widens every operation's result by what rounding may do to it (see `oracles.exact.balls`). That
bounds, entry by entry, how far any rounding of these formulas can move a gradient: `Enclosure.rounding`.

A subject's own forward and backward run on the same numbers, without a proof, in `in_exact_arithmetic`: an error that
stays there is no rounding. NumPy runs on balls through `Balls`, an object array under NumPy's own ufuncs. All code but
manual_bp's runs in a copy of this process (`oracles.exact.isolation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import inf, nextafter, prod
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from oracles.constants import BALL_BITS, BALL_LADDER, FORMULA_BITS, FORMULA_INPUTS, MOST_BRANCHES, NARROW_BITS
from oracles.exact.isolation import FLINT, apart
from oracles.missing import missing_module
from oracles.notes import note
from oracles.numerics import Numerics, smallest_normal, stored, unit_roundoff
from oracles.rule import Array, Enclosure, NotPerturbable, Output, Primals, Pullback, Rule, as_tuple, is_differentiable
from oracles.tolerance import named_outputs
from oracles.user_code import Raised, attempt

if TYPE_CHECKING:
    from oracles.exact.balls import Ball, RoundedTape, Tape

T = TypeVar("T")
Arb: TypeAlias = Any  # flint.arb; python-flint has no types
SMALLEST = 2.0**-1074  # the smallest float64 above 0


def ball_arithmetic(rule: Rule, *, name: str = "exact", bits: int = BALL_BITS) -> Rule:
    """Make an oracle of the primal of ``rule``: its cotangents are certified `Enclosure`s. The pullback is not used.

    ``y`` are the midpoints in float64. A radius includes the rounding of its midpoint to float64. It is infinite
    where there is no derivative, as √ has none at 0, or where the derivative is beyond the range of float64.

    Raises:
        NotPerturbable: if the forward does not run on object arrays of balls, if a comparison stays undecided in the
            highest precision, or if python-flint is missing.
    """

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        _balls()  # before the fork
        values = apart(rule, _values, primals, bits)

        def pullback(delta: Output) -> dict[str, Enclosure]:
            return apart(rule, _cotangents, primals, delta, bits)

        return values, pullback

    return Rule(evaluate, name)


def _values(rule: Rule, primals: Primals, bits: int) -> Output:
    """Return the midpoints of the outputs."""
    point = _ExactPoint(rule, primals, bits)
    values = tuple(e.mid for e in point.enclosures(_Evaluation.values).values())
    return values if point.evaluation().has_many_outputs else values[0]


def _cotangents(rule: Rule, primals: Primals, delta: Output, bits: int) -> dict[str, Enclosure]:
    return _ExactPoint(rule, primals, bits).enclosures(lambda evaluation: evaluation.cotangents(delta))


def certified_enclosures(
    rule: Rule,
    primals: Primals,
    delta: Output,
    numerics: Numerics | str,
    *,
    stores: Mapping[str, str] | None = None,
    bits: int = BALL_BITS,
) -> dict[str, Enclosure]:
    """Enclose the exact outputs ("output", or "output[0]" …) and cotangents, and bound what rounding can do to them.

    `Enclosure.rounding` bounds the distance from the truth of any evaluation of the rule's forward, and of the backward
    sweep through it, in which operations, partial sums and results are rounded as ``numerics`` says.

    Args:
        rule, primals, delta: the forward and the point.
        numerics: what is stored, accumulated and multiplied in, or the precision alone, see `Numerics.of`.
        stores: in which precision each array is stored that is rounded once, see `stores_of`; by default as declared.
        bits: the lowest working precision.

    Raises:
        NotPerturbable: as `ball_arithmetic` does, or if rounding can turn too many comparisons.
    """
    _balls()  # before the fork
    own = Numerics.of(numerics)
    enclosures: dict[str, Enclosure] = apart(rule, _certified_enclosures, primals, delta, own, bits)
    if not own.rounds_results:
        return enclosures

    def after_store(name: str, e: Enclosure) -> Enclosure:
        assert e.rounding is not None
        store = (stores or {}).get(name if name in primals else "", own.store)
        return replace(e, rounding=np.nextafter(stored(np.abs(e.mid) + e.radius, e.rounding, store), inf))

    return {name: after_store(name, e) for name, e in enclosures.items()}


def _certified_enclosures(
    rule: Rule, primals: Primals, delta: Output, numerics: Numerics, bits: int
) -> dict[str, Enclosure]:
    point = _ExactPoint(rule, primals, bits)
    exact = point.enclosures(lambda evaluation: evaluation.values_and_cotangents(delta))
    rounding = {name: np.zeros(e.mid.shape) for name, e in exact.items()}
    with working_precision(bits):
        # The farthest point over all branches that rounding can take.
        for evaluation in _rounded_evaluations(rule, primals, numerics, point.evaluation().is_off_ties):
            for name, balls in evaluation.values_and_cotangents(delta).items():
                distance = _farthest(balls, exact[name])
                rounding[name] = np.maximum(rounding[name], np.nextafter(distance, inf))
    return {
        name: Enclosure(e.mid, e.radius, np.where(e.radius < inf, rounding[name], inf)) for name, e in exact.items()
    }


def _farthest(balls: Array, exact: Enclosure) -> Array:
    """Return an upper bound of the distance between a point of each ball and a point of each enclosure."""
    entries = zip(balls.flat, exact.mid.flat, exact.radius.flat, strict=True)
    return np.reshape([_upper(abs(ball - mid)) + radius for ball, mid, radius in entries], exact.mid.shape)


@dataclass(frozen=True)
class _Evaluation:
    """One evaluation of a forward on a tape.

    Attributes:
        tape: the operations, for the sweep backwards.
        y: the outputs, arrays of balls.
        has_many_outputs: whether the forward returned a tuple.
        leaves: where each floating primal starts on the tape, and its shape.
        nearby: the evaluation next to the point, if there were ties.
    """

    tape: Tape
    y: tuple[Array, ...]
    has_many_outputs: bool
    leaves: dict[str, tuple[int, tuple[int, ...]]]
    nearby: _Evaluation | None = None

    def values(self) -> dict[str, Array]:
        """Return the outputs as arrays of arb."""
        return named_outputs(tuple(object_array([b.value for b in part.flat], part.shape) for part in self.y), {})

    @property
    def is_off_ties(self) -> bool:
        """Whether the derivative is that of the evaluation next to the point.

        A continuous function that equals a smooth one except where two numbers are equal, equals it there too.
        """
        is_continuous = self._is_finite_nearby and self._is_same_nearby
        return is_continuous and all(is_equality for _, _, is_equality in self.tape.ties)

    @cached_property
    def _is_finite_nearby(self) -> bool:
        return bool(self._outputs_nearby) and all(there.is_finite() for _, there in self._outputs_nearby)

    @cached_property
    def _is_same_nearby(self) -> bool:
        return all(here.overlaps(there) for here, there in self._outputs_nearby)

    @cached_property
    def _outputs_nearby(self) -> list[tuple[Arb, Arb]]:
        """The entries of the outputs, each with that next to the point; none if there were no ties."""
        if self.nearby is None:
            return []
        theirs = self.nearby.values()
        return [pair for name, part in self.values().items() for pair in zip(part.flat, theirs[name].flat, strict=True)]

    def cotangents(self, delta: Output) -> dict[str, Array]:
        """Return the cotangents as arrays of arb; NaN is what a tie decides.

        Where the function jumps at a tie, the branch of the point itself is all that can be differentiated.
        """
        if self.nearby is not None and self.is_off_ties:
            return self.nearby._swept(delta)
        here = self._swept(delta)
        jumps = self._is_finite_nearby and not self._is_same_nearby
        if self.nearby is None or jumps:
            return here
        there, tied = self.nearby._swept(delta), self.tape.tied()
        for name, (start, _) in self.leaves.items():
            for k, other in enumerate(there[name].flat):
                if start + k in tied and not (other.is_finite() and here[name].flat[k].overlaps(other)):
                    here[name].flat[k] = _balls().NAN
        return here

    def _swept(self, delta: Output) -> dict[str, Array]:
        deltas = [np.asarray(d) for d in as_tuple(delta)]
        if [d.shape for d in deltas] != [part.shape for part in self.y]:
            raise ValueError(f"delta: expected {[p.shape for p in self.y]}, got {[d.shape for d in deltas]}")
        seeds = [pair for y, d in zip(self.y, deltas, strict=True) for pair in zip(y.flat, _exact(d), strict=True)]
        grads = self.tape.sweep(seeds)
        return {n: object_array(grads[start : start + prod(shape)], shape) for n, (start, shape) in self.leaves.items()}

    def values_and_cotangents(self, delta: Output) -> dict[str, Array]:
        """Return outputs and cotangents as arrays of arb."""
        return {**self.values(), **self.cotangents(delta)}


def _evaluate(rule: Rule, primals: Primals, new_tape: Callable[[], Tape]) -> _Evaluation:
    """Evaluate the forward of a rule on balls."""

    def run(kind: type[Array]) -> _Evaluation:
        tape, arrays, leaves = new_tape(), dict(primals), {}
        for name, array in primals.items():
            if is_differentiable(array):
                array = np.asarray(array)
                leaves[name] = len(tape.nodes), array.shape
                arrays[name] = balls_of(tape, tape.leaves(_exact(array)), array.shape, kind)
        with np.errstate(all="ignore"):
            y, _ = rule(**arrays)
        parts = tuple(as_balls(tape, part) for part in as_tuple(y))
        return _Evaluation(tape, parts, isinstance(y, tuple | list), leaves)

    try:
        return run_on_balls(run, final=NotPerturbable)
    except ExceptionGroup as group:
        causes = "; ".join(dict.fromkeys(map(str, group.exceptions)))
        raise NotPerturbable(
            f"{rule.name}: its forward does not run on object arrays of balls: {causes}.\n"
            "Hint:   a primal in NumPy runs if it allocates by np.zeros_like(z), not np.zeros(shape), and casts nothing"
        ) from group.exceptions[0]


def run_on_balls(run: Callable[[type[Array]], T], *, final: type[Exception]) -> T:
    """Run code on `Balls`, or else on plain object arrays, for code that refuses a subclass of an array.

    Args:
        run: runs the code on arrays of the given type, `Balls` or ``np.ndarray``.
        final: what it raises where plain object arrays would not help.

    Raises:
        ExceptionGroup: if neither runs; it has both exceptions.
    """
    errors: list[Exception] = []
    # `Balls` first: code on plain object arrays may call methods that the numbers lack.
    for kind in (Balls, np.ndarray):
        result = attempt(partial(run, kind), reraise=(final,))
        if not isinstance(result, Raised):
            return result
        errors.append(result.error)
    raise ExceptionGroup("the code runs neither on Balls nor on plain object arrays", errors)


@dataclass
class _ExactPoint:
    """A forward at one point, evaluated in as much precision as its enclosures need.

    Attributes:
        rule, primals: the forward and the point.
        bits: the lowest precision.
        level: the present index into `BALL_LADDER`.
        evaluations: the evaluation at the present level, once it was needed.
    """

    rule: Rule
    primals: Primals
    bits: int
    level: int = 0
    evaluations: dict[int, _Evaluation] = field(default_factory=dict)

    def evaluation(self) -> _Evaluation:
        """Return the evaluation at the present level."""
        if self.level not in self.evaluations:
            self.evaluations = {self.level: self._evaluated()}
        return self.evaluations[self.level]

    def _evaluated(self) -> _Evaluation:
        new_tape = _balls().Tape
        evaluation = _evaluate(self.rule, self.primals, new_tape)
        if not evaluation.tape.ties:
            return evaluation
        return replace(evaluation, nearby=_evaluate(self.rule, self.primals, partial(new_tape, off_ties=True)))

    def enclosures(self, question: Callable[[_Evaluation], dict[str, Array]]) -> dict[str, Enclosure]:
        """Return what a function computes from an evaluation, in the first precision that decides every entry."""
        balls = _balls()
        while True:
            with FLINT, working_precision(self.bits * BALL_LADDER[self.level]):
                is_last = self.level == len(BALL_LADDER) - 1
                try:
                    arrays = question(self.evaluation())
                    if is_last or all(_is_narrow(ball) for array in arrays.values() for ball in array.flat):
                        return {name: _enclosure(array) for name, array in arrays.items()}
                except balls.Undecided:
                    if is_last:
                        raise
                self.level += 1


def _rounded_evaluations(rule: Rule, primals: Primals, numerics: Numerics, off_ties: bool) -> Iterator[_Evaluation]:
    """Evaluate with rounding, once for every combination of comparisons that rounding can turn."""
    balls = _balls()
    accumulated, tiny = unit_roundoff(numerics.accumulate), smallest_normal(numerics.inner)
    branches: list[bool] | None = []
    for _ in range(MOST_BRANCHES):
        new_tape = partial(balls.RoundedTape, numerics.unit, accumulated, tiny, branches, off_ties)
        evaluation = _evaluate(rule, primals, new_tape)
        yield evaluation
        tape: RoundedTape = evaluation.tape  # type: ignore[assignment]
        branches = tape.next_branches()
        if branches is None:
            return
    raise NotPerturbable(f"{rule.name}: rounding in {numerics} can turn too many comparisons here")


def _is_narrow(ball: Arb) -> bool:
    return bool(ball.is_exact() or ball.rel_accuracy_bits() >= NARROW_BITS or ball.rad() < SMALLEST)


def _enclosure(balls: Array) -> Enclosure:
    """Return midpoints in float64, and radii that include their rounding."""
    mid = np.array([float(b.mid()) if b.is_finite() or b.is_exact() else 0.0 for b in balls.flat])
    radius = np.array(
        [0.0 if b.is_exact() and b == m else _upper(b - m) for b, m in zip(balls.flat, mid.tolist(), strict=True)]
    )
    return Enclosure(mid.reshape(balls.shape), radius.reshape(balls.shape))


def _upper(ball: Arb) -> float:
    """Return an upper bound of |ball| in float64."""
    bound = ball.abs_upper()
    rounded = float(bound)
    if not rounded < inf:
        return inf
    return rounded if bound <= rounded else nextafter(rounded, inf)


def _exact(array: Array) -> list[object]:
    """Return the entries as Python floats, which hold them exactly; those of a longdouble as they are."""
    return list(array.flat) if array.dtype.char == "g" else list(array.astype(np.float64).ravel().tolist())


def _balls() -> ModuleType:
    """Import the number type, and with it python-flint, which is optional."""
    missing = missing_module("flint")
    if missing is not None:
        note(f"ball arithmetic is skipped: {missing.line}")
        raise NotPerturbable(f"exact enclosures need python-flint: {missing.fix}")
    from oracles.exact import balls

    return balls


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Compute with balls of so many bits, one thread at a time."""
    from flint import ctx

    with FLINT, ctx.workprec(bits):
        yield


class NoMemory(NotPerturbable):
    """Compiled code asked for the memory of balls; plain object arrays would pass pointers to Python objects."""


class Balls(np.ndarray[Any, Any]):
    """An object array of balls and numbers, under the ufuncs that are defined on balls; the others raise."""

    tape: Tape

    @property
    def ctypes(self) -> NoReturn:
        """Raise: compiled code would take pointers to Python objects for numbers."""
        raise NoMemory("compiled code takes no balls")

    @property
    def __array_interface__(self) -> NoReturn:
        raise NoMemory("compiled code takes no balls")

    def __array_finalize__(self, parent: object) -> None:
        if isinstance(parent, Balls):
            self.tape = parent.tape

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: object, out: tuple[object, ...] | None = None, **options: object
    ) -> object:
        name, arrays = ufunc.__name__, [plain(x) for x in inputs]
        if ufunc.nin == 1 or name in _BY_METHOD:  # the others are Python's operators, which numbers have too
            if method == "at":
                raise NotPerturbable(f"np.{name}.at does not run on balls")
            arrays[: ufunc.nin] = [as_balls(self.tape, x) for x in arrays[: ufunc.nin]]
        if out is not None:
            options["out"] = tuple(map(plain, out))
        result = getattr(_BY_METHOD.get(name, ufunc), method)(*arrays, **options)
        if name in ("isnan", "isinf", "isfinite", "signbit"):
            return np.asarray(result, bool)[()]
        return self._wrap(result) if out is None else out[0]

    def __array_function__(
        self, function: Callable[..., object], types: Iterable[type], args: Iterable[object], kwargs: Mapping[str, Any]
    ) -> object:
        if function is np.nan_to_num:
            raise NotPerturbable("np.nan_to_num leaves objects as they are, infinite or not")
        return self._wrap(super().__array_function__(function, types, args, kwargs))

    def astype(self, dtype: npt.DTypeLike, *args: Any, **kwargs: Any) -> Array:  # type: ignore[override]
        """Return a copy for floating dtypes, since the oracle chooses the precision; balls are no integers."""
        return self.copy() if np.dtype(dtype).kind in "fO" else super().astype(dtype, *args, **kwargs)

    def _wrap(self, result: object) -> object:
        """Return object arrays as `Balls`, and anything else as plain arrays."""
        if isinstance(result, tuple | list):
            return type(result)(map(self._wrap, result))
        if isinstance(result, np.ndarray) and result.dtype == object:
            result = result.view(Balls)
            result.tape = self.tape
        return result if isinstance(result, Balls) and result.dtype == object else plain(result)


def plain(x: object) -> object:
    """Return balls as a plain object array, and anything else as it is."""
    return x.view(np.ndarray) if isinstance(x, Balls) else x


def as_balls(tape: Tape, x: object) -> Array:
    """Return an array, or a number, in which every entry is a ball."""
    array = np.asarray(x, object)
    balls = [tape.constant(entry) for entry in array.flat]
    if any(ball is NotImplemented for ball in balls):
        raise TypeError("expected numbers")
    return object_array(balls, array.shape)


def _is_finite(ball: Ball) -> bool:
    """Return whether this is a number; a ball without bounds may become one in more precision."""
    return bool(ball.value.is_finite() or (not ball.value.is_exact() and ball.tape.decide(ball, ball)))


# Ufuncs of which every operand must be a ball, most of them because they have no loop of their own over objects.
_BY_METHOD: dict[str, np.ufunc] = {
    "arctan2": np.arctan2,
    "logaddexp": np.frompyfunc(lambda a, b: a.logaddexp(b), 2, 1),
    "float_power": np.frompyfunc(lambda a, b: a**b, 2, 1),
    "copysign": np.frompyfunc(lambda a, b: -abs(a) if b < 0 else abs(a), 2, 1),
    "heaviside": np.frompyfunc(lambda a, b: (1.0, b, 0.0)[1 - a.sign()], 2, 1),
    "sign": np.frompyfunc(lambda a: a.sign(), 1, 1),
    "signbit": np.frompyfunc(lambda a: a < 0, 1, 1),
    "isfinite": np.frompyfunc(_is_finite, 1, 1),
    "isinf": np.frompyfunc(lambda a: not _is_finite(a) and not a.value.is_nan(), 1, 1),
    "isnan": np.frompyfunc(lambda a: not _is_finite(a) and bool(a.value.is_nan()), 1, 1),
}


def object_array(entries: Sequence[object], shape: tuple[int, ...]) -> Array:
    """Return the entries as an object array, whatever they are."""
    result = np.empty(len(entries), object)
    result[:] = entries
    return result.reshape(shape)


def balls_of(tape: Tape, entries: Sequence[Ball], shape: tuple[int, ...], kind: type[Array]) -> Array:
    """Return balls on a tape as an array: `Balls`, or a plain object array if ``kind`` is ``np.ndarray``."""
    array = object_array(entries, shape)
    if kind is not Balls:
        return array
    balls = array.view(Balls)
    balls.tape = tape
    return balls


def in_exact_arithmetic(rule: Rule, primals: Primals, delta: Output) -> dict[str, Array]:
    """Return a rule's outputs and cotangents as its own code computes them on numbers of 512 bits, in float64.

    Raises:
        NotPerturbable: if forward or backward does not run on object arrays, if there are more than `FORMULA_INPUTS`
            inputs, or if python-flint is missing.
    """
    if not rule.runs_on_object_arrays or sum(np.size(a) for a in primals.values()) > FORMULA_INPUTS:
        raise NotPerturbable(f"{rule.name} is a framework's, or too large for exact arithmetic")
    _balls()  # before the fork
    return apart(rule, _in_exact_arithmetic, primals, delta)


def _in_exact_arithmetic(rule: Rule, primals: Primals, delta: Output) -> dict[str, Array]:
    balls = _balls()

    def run(kind: type[Array]) -> dict[str, Array]:
        with working_precision(FORMULA_BITS), np.errstate(all="ignore"):
            return _evaluate_midpoints(rule, primals, delta, balls.Tape(), kind)

    try:
        return run_on_balls(run, final=NoMemory)
    except ExceptionGroup as group:
        cause = group.exceptions[-1]
        raise NotPerturbable(f"{rule.name} does not run on object arrays: {cause}") from cause


def _evaluate_midpoints(rule: Rule, primals: Primals, delta: Output, tape: Tape, kind: type[Array]) -> dict[str, Array]:
    """Evaluate forward and pullback on balls, and return the midpoints."""
    y, pullback = rule(**{n: _constants(tape, a, kind) for n, a in primals.items()})
    seeds = tuple(_constants(tape, d, kind) for d in as_tuple(delta))
    results = named_outputs(as_tuple(y), dict(pullback(seeds if isinstance(delta, tuple) else seeds[0])))
    return {n: _midpoints(a) for n, a in results.items()}


def _constants(tape: Tape, array: Array, kind: type[Array]) -> Array:
    """Return a floating array as balls without a derivative; integers as they are."""
    array = np.asarray(array)
    if not is_differentiable(array):
        return array
    entries = [tape.constant(x) for x in array.astype(np.float64).ravel().tolist()]
    return balls_of(tape, entries, array.shape, kind)


def _midpoints(array: object) -> Array:
    """Return the midpoints of balls, and other numbers, in float64."""
    from oracles.exact.balls import Ball

    objects = np.asarray(array, object)
    midpoints = [float(b.value.mid()) if isinstance(b, Ball) else float(b) for b in objects.flat]
    return np.array(midpoints).reshape(objects.shape)
