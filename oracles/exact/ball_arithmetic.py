"""The exact oracle: a rule's own NumPy primal, evaluated on balls, encloses its exact derivative.

No framework and no hand-written backward takes part, only the formulas that the forward evaluates. The precision is
raised until every enclosure is narrow; what stays undecided is refused with `NotPerturbable`.

The same evaluation in which every operation's result is widened by what rounding may do to it (see
`oracles.exact.balls`) bounds, entry by entry, how far any rounding of it can move a gradient: `rounding_radius`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf, nextafter, prod
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from oracles.exact.ball_arrays import Balls, as_balls, object_array
from oracles.rule import (
    Array,
    Cotangents,
    Enclosure,
    NotPerturbable,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
)
from oracles.tolerance import _PRECISIONS, named_outputs, precision_name

if TYPE_CHECKING:
    from oracles.exact.balls import Tape

BITS = 128
LADDER = (1, 2, 10, 32)  # times the bits: the third detects_above what float64 cannot tell from 0, the last more
MAX_WAYS = 16  # through comparisons that rounding can turn
NARROW = 60  # an enclosure decides when its radius is at most 2^−60 of its magnitude, or below 2^−1074
_FLINT = RLock()  # python-flint has one precision for the whole process


def ball_arithmetic(rule: Rule, *, name: str = "exact", bits: int = BITS) -> Rule:
    """Lift the primal of ``rule`` into an oracle whose cotangents are proved `Enclosure`s; its pullback is not used.

    ``y`` are the midpoints in float64. A radius includes the rounding of its midpoint to float64, and is infinite
    where there is no derivative, as √ has none at 0, or where it is beyond the range of float64.

    Raises:
        NotPerturbable: if the forward does not run on object arrays of balls, if a comparison stays undecided in the
            highest precision, or if python-flint is missing.
    """

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        exact = _Exact(rule, primals, bits)
        values = tuple(e.mid for e in exact.enclosures(_Run.values).values())

        def pullback(delta: Any) -> Cotangents:
            return dict(exact.enclosures(lambda run: run.cotangents(delta)))

        return (values if exact.run().many else values[0]), pullback

    return Rule(evaluate, name)


def rounding_radius(rule: Rule, primals: Primals, delta: Any, precision: str) -> dict[str, Array]:
    """Return how far any rounding of this evaluation can be from the truth: "output" ("output[0]" …) and cotangents.

    The evaluation is the rule's forward and the backward sweep through it, every operation rounded in ``precision``.

    Raises:
        NotPerturbable: as `ball_arithmetic` does, or if rounding can turn too many comparisons.
    """
    return enclosure_and_radius(rule, primals, delta, precision)[1]


def enclosure_and_radius(
    rule: Rule, primals: Primals, delta: Any, precision: str, *, bits: int = BITS
) -> tuple[dict[str, Enclosure], dict[str, Array]]:
    """Return the exact outputs and cotangents, and their `rounding_radius`, under the same names."""
    exact = _Exact(rule, primals, bits).enclosures(lambda run: {**run.values(), **run.cotangents(delta)})
    radius = {name: np.zeros(e.mid.shape) for name, e in exact.items()}
    with working_precision(bits):
        for run in _rounded(rule, primals, precision):
            for name, balls in {**run.values(), **run.cotangents(delta)}.items():
                mid, own = exact[name]
                reach = [_upper(abs(b - m)) + r for b, m, r in zip(balls.flat, mid.flat, own.flat, strict=True)]
                radius[name] = np.maximum(radius[name], np.nextafter(np.reshape(reach, mid.shape), inf))
    return exact, {name: np.where(exact[name].radius < inf, r, inf) for name, r in radius.items()}


@dataclass(frozen=True)
class _Run:
    """One evaluation of a forward on a tape."""

    tape: Tape
    y: tuple[Array, ...]
    many: bool
    leaves: dict[str, tuple[int, tuple[int, ...]]]

    def values(self) -> dict[str, Array]:
        """Return the outputs as arrays of arb."""
        return named_outputs(tuple(object_array([b.value for b in part.flat], part.shape) for part in self.y), {})

    def cotangents(self, delta: Any) -> dict[str, Array]:
        """Return the cotangents as arrays of arb."""
        deltas = [np.asarray(d) for d in as_tuple(delta)]
        if [d.shape for d in deltas] != [part.shape for part in self.y]:
            raise ValueError(f"delta: expected {[p.shape for p in self.y]}, got {[d.shape for d in deltas]}")
        seeds = [pair for y, d in zip(self.y, deltas, strict=True) for pair in zip(y.flat, _exact(d), strict=True)]
        swept = self.tape.sweep(seeds)
        return {n: object_array(swept[start : start + prod(shape)], shape) for n, (start, shape) in self.leaves.items()}


def _evaluated(rule: Rule, primals: Primals, new_tape: Callable[[], Tape]) -> _Run:
    """Evaluate the forward on `Balls`, or on plain object arrays for code that refuses a subclass."""
    errors: dict[str, Exception] = {}
    for kind in (Balls, np.ndarray):
        tape, arrays, leaves = new_tape(), {}, {}
        for name, array in primals.items():
            arrays[name] = array
            if is_differentiable(array):
                array = np.asarray(array)
                leaves[name] = len(tape.nodes), array.shape
                arrays[name] = object_array(tape.leaves(_exact(array)), array.shape).view(kind)
                if kind is Balls:
                    arrays[name].tape = tape  # type: ignore[attr-defined]
        try:
            with np.errstate(all="ignore"):
                y, _ = rule(**arrays)
            parts = tuple(as_balls(tape, part) for part in as_tuple(y))
            return _Run(tape, parts, isinstance(y, tuple | list), leaves)
        except NotPerturbable:
            raise
        except Exception as error:
            errors.setdefault(str(error), error)
    raise NotPerturbable(
        f"{rule.name}: its forward does not run on object arrays of balls: {'; '.join(errors)}.\n"
        "Hint:   a primal in NumPy runs if it allocates by np.zeros_like(z), not np.zeros(shape), and casts nothing"
    ) from next(iter(errors.values()))


@dataclass
class _Exact:
    """A forward at one point, in as much precision as its enclosures turn out to need."""

    rule: Rule
    primals: Primals
    bits: int
    level: int = 0
    runs: dict[int, _Run] = field(default_factory=dict)

    def run(self) -> _Run:
        """Return the evaluation at the present level."""
        if self.level not in self.runs:
            self.runs = {self.level: _evaluated(self.rule, self.primals, _balls().Tape)}
        return self.runs[self.level]

    def enclosures(self, question: Callable[[_Run], dict[str, Array]]) -> dict[str, Enclosure]:
        """Return what the question finds in a run, once every entry is decided."""
        balls = _balls()
        while True:
            with _FLINT, working_precision(self.bits * LADDER[self.level]):
                last = self.level == len(LADDER) - 1
                try:
                    found = question(self.run())
                    if last or all(_is_narrow(b) for array in found.values() for b in array.flat):
                        return {name: _enclosure(array) for name, array in found.items()}
                except balls.Undecided:
                    if last:
                        raise
                self.level += 1


def _rounded(rule: Rule, primals: Primals, precision: str) -> Iterator[_Run]:
    """Evaluate with rounding, once for every way through the comparisons that rounding can turn."""
    balls = _balls()
    way: list[bool] | None = []
    for _ in range(MAX_WAYS):
        run = _evaluated(rule, primals, partial(balls.RoundedTape, *_PRECISIONS[precision_name(precision)], way))
        yield run
        way = run.tape.next_way()  # type: ignore[attr-defined]
        if way is None:
            return
    raise NotPerturbable(f"{rule.name}: rounding in {precision} can turn too many comparisons here")


def _is_narrow(ball: Any) -> bool:
    return bool(ball.is_exact() or ball.rel_accuracy_bits() >= NARROW or ball.rad() < 2.0**-1074)


def _enclosure(balls: Array) -> Enclosure:
    """Return midpoints in float64, and radii that include their rounding."""
    mid = np.array([float(b.mid()) if b.is_finite() or b.is_exact() else 0.0 for b in balls.flat])
    radius = np.array(
        [0.0 if b.is_exact() and b == m else _upper(b - m) for b, m in zip(balls.flat, mid.tolist(), strict=True)]
    )
    return Enclosure(mid.reshape(balls.shape), radius.reshape(balls.shape))


def _upper(ball: Any) -> float:
    """Return an upper bound of |ball| in float64."""
    bound = ball.abs_upper()
    found = float(bound)
    return inf if not found < inf else found if bound <= found else nextafter(found, inf)


def _exact(array: Array) -> list[Any]:
    """Return the entries as Python floats, which hold them exactly; those of a longdouble as they are."""
    return list(array.flat) if array.dtype.char == "g" else list(array.astype(np.float64).ravel().tolist())


def _balls() -> Any:
    """Import the number type, and with it python-flint."""
    try:
        from oracles.exact import balls
    except ImportError as error:
        raise NotPerturbable('exact enclosures need python-flint: pip install "manual-bp[exact]"') from error
    return balls


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Compute with balls of so many bits, one thread at a time."""
    from flint import ctx

    with _FLINT, ctx.workprec(bits):
        yield
