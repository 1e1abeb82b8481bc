"""The number type of ball arithmetic: a ball [mid ± radius] of python-flint that records its operations on a tape.

A `Ball` holds an enclosure of a value and its index on a `Tape`. Every operation c = f(a, b) appends the indices of its
operands and enclosures of ∂f/∂a and ∂f/∂b. One sweep backwards,

    ḡ_a ← ḡ_a + ḡ_c ∂f/∂a,        ḡ_b ← ḡ_b + ḡ_c ∂f/∂b,

then encloses the exact derivative with respect to every input. On a `RoundedTape` every intermediate result is widen
by what rounding may do to it, so that the sweep encloses what any rounding of these formulas can give.
Arithmetic runs in the precision ``flint.ctx.prec``. A ball is never converted to a float, an int or an array.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from math import frexp, isinf
from numbers import Integral, Rational
from typing import Any, TypeAlias

import numpy as np
from flint import arb, fmpq

from oracles.constants import ELEMENTARY_ROUNDINGS
from oracles.rule import NotPerturbable

Arb: TypeAlias = Any  # flint.arb; python-flint has no types
Partial: TypeAlias = Any  # an arb, or SAME or MINUS; None of a constant
ZERO, ONE, NAN = arb(0), arb(1), arb("nan")
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, are spread evenly and never repeat
SAME, MINUS = 1, -1  # the partial derivatives of sums: no product, no rounding; compared by identity


class Undecided(NotPerturbable):
    """Two balls overlap, so their comparison is undecided; more precision may decide it."""


class Tape:
    """The operations in order, each as ``(a, ∂/∂a, b, ∂/∂b)`` with the indices of its operands; −1 is a constant.

    A tie is a comparison of two equal numbers whose outcome holds at this point alone: ``x == 0`` at x = 0, ``x² > 0``.
    The branch that it chooses says nothing about the derivative.

    Args:
        off_ties: whether ties get the outcome that they have next to the point.

    Attributes:
        nodes: the operations.
        ties: the indices of what was compared at each tie, and whether it was compared by == or !=.
    """

    def __init__(self, off_ties: bool = False) -> None:
        self.nodes: list[tuple[int, Partial, int, Partial]] = []
        self.off_ties = off_ties
        self.ties: list[tuple[int, int, bool]] = []
        self.tangents: list[Arb] = []

    def leaves(self, floats: Iterable[object]) -> list[Ball]:
        """Append inputs, exactly the given floats, at consecutive indices."""
        start = len(self.nodes)
        leaves = [Ball(exact(x), self, index) for index, x in enumerate(floats, start)]
        self.nodes += [(-1, None, -1, None)] * len(leaves)
        return leaves

    def constant(self, x: object) -> Any:
        """Return a number of any type as a ball without a derivative; NotImplemented if it is not a number."""
        if type(x) is Ball:
            return x
        value = exact(x)
        return value if value is NotImplemented else Ball(value, self, -1)

    def record(self, value: Arb, a: int, da: Partial, b: int = -1, db: Partial = None, roundings: int = 1) -> Ball:
        """Append an operation that counts as so many roundings, and return its result."""
        if a < 0 and b < 0:
            return Ball(value, self, -1)
        nodes = self.nodes
        nodes.append((a, da, b, db))
        return Ball(value, self, len(nodes) - 1)

    def add(self, a: Ball, b: Ball, sign: int) -> Ball:
        """Return a + sign·b; a − a is 0 and depends on nothing."""
        if sign is SAME:
            return self.record(a.value + b.value, a.index, SAME, b.index, SAME)
        return Ball(ZERO, self, -1) if a is b else self.record(a.value - b.value, a.index, SAME, b.index, MINUS)

    def decide(self, a: Ball, b: Ball) -> bool:
        """Decide a comparison of balls that overlap."""
        raise Undecided(f"undecided comparison of {a!r} and {b!r}")

    def decide_equal(self, a: Ball, b: Ball, outcome: bool, is_equality: bool) -> bool:
        """Return the outcome of a comparison of two equal numbers.

        An inequality holds at this point alone only where the difference of the numbers has an extremum.
        """
        if not (is_equality or (self._tangent(a) - self._tangent(b)).is_zero()):
            return outcome
        self.ties.append((a.index, b.index, is_equality))
        return outcome != self.off_ties

    def _tangent(self, ball: Ball) -> Arb:
        """Return the derivative of a ball along an arbitrary direction of all inputs."""
        known = self.tangents
        for index, (a, da, b, db) in enumerate(self.nodes[len(known) :], len(known)):
            own = arb((index * GOLDEN) % 1.0 + 0.5) if a < 0 and b < 0 else ZERO
            known.append(own + (known[a] * da if a >= 0 else ZERO) + (known[b] * db if b >= 0 else ZERO))
        return known[ball.index] if ball.index >= 0 else ZERO

    def tied(self) -> set[int]:
        """Return the indices of all numbers on which a tie depends."""
        waiting, found = [index for a, b, _ in self.ties for index in (a, b)], set[int]()
        while waiting:
            index = waiting.pop()
            if index >= 0 and index not in found:
                found.add(index)
                waiting += [self.nodes[index][0], self.nodes[index][2]]
        return found

    def sweep(self, seeds: Iterable[tuple[Ball, object]]) -> list[Arb]:
        """Return Σ seed·∂ball/∂node for every node, exactly 0 if there is no path."""
        grads: list[Any] = [[] for _ in self.nodes]  # lists of terms, replaced by their sums
        for ball, seed in seeds:
            if ball.index >= 0:
                grads[ball.index].append(self.widen(exact(seed)))
        for index in range(len(grads) - 1, -1, -1):
            terms = grads[index]
            if not terms:
                grads[index] = ZERO
                continue
            g = grads[index] = terms[0] if len(terms) == 1 else self.total(terms)
            a, da, b, db = self.nodes[index]
            if a >= 0:
                grads[a].append(g if da is SAME else -g if da is MINUS else self.widen(g * da))
            if b >= 0:
                grads[b].append(g if db is SAME else -g if db is MINUS else self.widen(g * db))
        return grads

    def total(self, terms: list[Arb]) -> Arb:
        """Return the sum of the contributions to one node."""
        return sum(terms[1:], terms[0])

    def widen(self, value: Arb, roundings: int = 1) -> Arb:
        """Return an enclosure of a value after so many roundings: here, without rounding, the value itself."""
        return value


class RoundedTape(Tape):
    """A tape that widens every result x to x(1 ± u) ± tiny.

    A sum of n ≥ 3 terms t becomes Σ t(1 ± v)^{n−1}, a bound for every order of summation; v is the unit roundoff of
    partial sums. If that is finer than u, the sum is rounded once more; if it is coarser, a sum of two is such a sum
    too. An exact 0 stays 0. The seed counts as one
    rounding: some product with delta is in every backward, though not in every sweep.
    A comparison that rounding can turn takes one branch now, and the other in the evaluation of `next_branches`.

    Args:
        unit: the unit roundoff u.
        accumulated: that of partial sums.
        tiny: the smallest normal number; less may be flushed to zero.
        branches: the outcomes of the first such comparisons, in order; further ones are true.
        off_ties: as of a `Tape`.
    """

    def __init__(
        self, unit: float, accumulated: float, tiny: float, branches: Iterable[bool] = (), off_ties: bool = False
    ) -> None:
        super().__init__(off_ties)
        self.unit, self.accumulated, self.floor = unit, accumulated, arb(0, tiny)
        self.noises: dict[tuple[float, int], Arb] = {}
        self.chains: dict[int, tuple[Arb, Arb, int]] = {}  # of each partial sum: the sum, Σ |terms|, how many terms
        self.branches, self.decided = list(branches), 0

    def constant(self, x: object) -> Any:
        """Return a number as a ball, widened if this precision cannot represent it."""
        ball = super().constant(x)
        is_exact = ball is x or ball is NotImplemented or isinstance(x, Integral)
        is_exact = is_exact or (isinstance(x, float) and (isinf(x) or (frexp(x)[0] / self.unit).is_integer()))
        return ball if is_exact else Ball(self.widen(ball.value), self, -1)

    def noise(self, n: int, unit: float) -> Arb:
        """Return an enclosure of (1 ± u)^n − 1, for a unit roundoff u."""
        return self.noises.get((unit, n)) or self.noises.setdefault((unit, n), arb(0, (ONE + unit) ** n - ONE))

    def widen(self, value: Arb, roundings: int = 1) -> Arb:
        """Return an enclosure of a value after so many roundings."""
        return value if value.is_zero() else value + value * self.noise(roundings, self.unit) + self.floor

    def record(self, value: Arb, a: int, da: Partial, b: int = -1, db: Partial = None, roundings: int = 1) -> Ball:
        """Append an operation, its result and its partial derivatives rounded."""
        if roundings:
            value = self.widen(value, roundings)
            da = self.widen(da, roundings) if a >= 0 else None
            db = self.widen(db, roundings) if b >= 0 else None
        return super().record(value, a, da, b, db)

    def add(self, a: Ball, b: Ball, sign: int) -> Ball:
        """Return a + sign·b, joined with the sums that a and b may be; a − a is 0, but its sweep rounds."""
        if a is b and sign is MINUS:
            return self.record(ZERO, a.index, SAME, a.index, MINUS, roundings=0)
        total, size, n = self.chains.get(a.index) or (a.value, abs(a.value), 1)
        total_b, size_b, n_b = self.chains.get(b.index) or (b.value, abs(b.value), 1)
        total, size, n = (total + total_b if sign is SAME else total - total_b), size + size_b, n + n_b
        node = self.record(self._rounded_sum(total, size, n), a.index, SAME, b.index, sign, roundings=0)
        if node.index >= 0:
            self.chains[node.index] = total, size, n
        return node

    def _rounded_sum(self, total: Arb, size: Arb, n: int) -> Arb:
        """Return a sum of n terms, widened for every order of summation; ``size`` is Σ |terms|."""
        if size.is_zero() or (n < 3 and self.accumulated <= self.unit):
            return self.widen(total)
        rounded = total + size * self.noise(n - 1, self.accumulated) + self.floor
        return self.widen(rounded) if self.accumulated < self.unit else rounded

    def total(self, terms: list[Arb]) -> Arb:
        """Return the sum of the contributions to one node, rounded, in any order."""
        return self._rounded_sum(super().total(terms), sum(map(abs, terms), ZERO), len(terms))

    def decide(self, a: Ball, b: Ball) -> bool:
        """Return the outcome that is next in ``branches``."""
        if self.decided == len(self.branches):
            self.branches.append(True)
        self.decided += 1
        return self.branches[self.decided - 1]

    def next_branches(self) -> list[bool] | None:
        """Return the next outcomes of the comparisons that rounding can turn; ``None`` after the last.

        The outcomes count down like binary digits: the last true one becomes false, and what follows is open.
        """
        if True not in self.branches:
            return None
        last_true = len(self.branches) - 1 - self.branches[::-1].index(True)
        return [*self.branches[:last_true], False]


class Ball:
    """An enclosure and its index on the tape, −1 for a constant; operators and functions come from the tables below.

    Comparisons of balls that overlap are decided by the tape. At a tie the derivative is that of the branch that the
    code takes; that of abs is 0 at 0.
    """

    __slots__ = ("index", "tape", "value")

    def __init__(self, value: Arb, tape: Tape, index: int) -> None:
        self.value, self.tape, self.index = value, tape, index

    def __repr__(self) -> str:
        return f"Ball({self.value.str(17)})"

    def __neg__(self) -> Ball:
        return self.tape.record(-self.value, self.index, MINUS, roundings=0)

    def __abs__(self) -> Ball:
        sign = self.sign()
        # At 0 it depends on the number, with the derivative 0: ``abs(x) == 0`` is a tie.
        return self if sign > 0 else -self if sign < 0 else self.tape.record(ZERO, self.index, ZERO, roundings=0)

    def __bool__(self) -> bool:
        ball: Any = self
        return bool(ball != 0)

    def sign(self) -> int:
        """Return 1, 0 or −1, a constant."""
        ball: Any = self
        return int(ball > 0) - int(ball < 0)


def exact(x: Any) -> Arb:
    """Return a number of any type as an arb, without error in 64 bits or more; NotImplemented if it is not a number."""
    if isinstance(x, float | int):
        return arb(x)
    if isinstance(x, Rational):
        return arb(fmpq(int(x.numerator), int(x.denominator)))
    if isinstance(x, np.longdouble) and np.isfinite(x):  # more digits than a float
        return arb(fmpq(*x.as_integer_ratio()))
    return arb(float(x)) if isinstance(x, np.floating | np.bool_) or type(x).__name__ == "bfloat16" else NotImplemented


def _power(a: Ball, b: Ball) -> Ball:
    v, p = a.value, b.value
    if b.index < 0 and p.is_integer():
        n = int(p.unique_fmpz())
        return a.tape.record(
            v**n, a.index, n * v ** (n - 1) if n else ZERO, roundings=1 if n == 2 else ELEMENTARY_ROUNDINGS
        )
    c = v.sqrt() if b.index < 0 and p == 0.5 else v**p
    return a.tape.record(
        c, a.index, p * v ** (p - 1), b.index, c * v.log() if b.index >= 0 else None, ELEMENTARY_ROUNDINGS
    )


def _logaddexp(a: Ball, b: Ball) -> Ball:
    high, low = (a, b) if a.value.mid() >= b.value.mid() else (b, a)
    e = (low.value - high.value).exp()
    return a.tape.record(
        high.value + e.log1p(), high.index, ONE / (1 + e), low.index, e / (1 + e), ELEMENTARY_ROUNDINGS
    )


_BINARY: dict[str, Callable[[Ball, Ball], Ball]] = {
    "add": lambda a, b: a.tape.add(a, b, SAME),
    "sub": lambda a, b: a.tape.add(a, b, MINUS),
    "mul": lambda a, b: a.tape.record(a.value * b.value, a.index, b.value, b.index, a.value),
    "truediv": lambda a, b: a.tape.record(q := a.value / b.value, a.index, ONE / b.value, b.index, -q / b.value),
    "pow": _power,
    "logaddexp": _logaddexp,
    "arctan2": lambda a, b: a.tape.record(
        arb.atan2(v := a.value, w := b.value),
        a.index,
        w / (v * v + w * w),
        b.index,
        -v / (v * v + w * w),
        ELEMENTARY_ROUNDINGS,
    ),
}

# Each function of v, and its derivative from v and its value c, written without differences that cancel.
_UNARY: dict[str, tuple[Callable[[Arb], Arb], Callable[[Arb, Arb], Arb]]] = {
    "exp": (arb.exp, lambda v, c: c),
    "exp2": (lambda v: (v * arb.const_log2()).exp(), lambda v, c: c * arb.const_log2()),
    "expm1": (arb.expm1, lambda v, c: v.exp()),
    "log": (arb.log, lambda v, c: ONE / v),
    "log2": (lambda v: v.log() / arb.const_log2(), lambda v, c: ONE / (v * arb.const_log2())),
    "log10": (lambda v: v.log() / arb.const_log10(), lambda v, c: ONE / (v * arb.const_log10())),
    "log1p": (arb.log1p, lambda v, c: ONE / (1 + v)),
    "sqrt": (arb.sqrt, lambda v, c: ONE / (2 * c)),
    "cbrt": (lambda v: v.sgn() * abs(v).root(3), lambda v, c: ONE / (3 * c * c)),
    "sin": (arb.sin, lambda v, c: v.cos()),
    "cos": (arb.cos, lambda v, c: -v.sin()),
    "tan": (arb.tan, lambda v, c: v.sec() ** 2),
    "arcsin": (arb.asin, lambda v, c: ((1 - v) * (1 + v)).rsqrt()),
    "arccos": (arb.acos, lambda v, c: -((1 - v) * (1 + v)).rsqrt()),
    "arctan": (arb.atan, lambda v, c: ONE / (1 + v * v)),
    "sinh": (arb.sinh, lambda v, c: v.cosh()),
    "cosh": (arb.cosh, lambda v, c: v.sinh()),
    "tanh": (arb.tanh, lambda v, c: s * s if (s := v.sech()).is_finite() else arb(0.5, 0.5)),  # in [0, 1]
    "arcsinh": (arb.asinh, lambda v, c: (1 + v * v).rsqrt()),
    "arccosh": (arb.acosh, lambda v, c: ((v - 1) * (v + 1)).rsqrt()),
    "arctanh": (arb.atanh, lambda v, c: ONE / ((1 - v) * (1 + v))),
    "ndtr": (lambda v: (-v * arb(0.5).sqrt()).erfc() / 2, lambda v, c: (-v * v / 2).exp() / (2 * arb.pi()).sqrt()),
}


def _unary(function: Callable[[Arb], Arb], derivative: Callable[[Arb, Arb], Arb]) -> Callable[[Ball], Ball]:
    def method(self: Ball) -> Ball:
        c = function(self.value)
        return self.tape.record(c, self.index, derivative(self.value, c), roundings=ELEMENTARY_ROUNDINGS)

    return method


def _binary(function: Callable[[Ball, Ball], object], *, swapped: bool = False) -> Callable[[Ball, object], object]:
    def method(self: Ball, other: object) -> object:
        b = other if type(other) is Ball else self.tape.constant(other)
        return b if b is NotImplemented else function(b, self) if swapped else function(self, b)

    return method


def _relation(holds: Callable[[Any, Any], bool], fails: Callable[[Any, Any], bool]) -> Callable[[Ball, Ball], bool]:
    is_equality = holds in (operator.eq, operator.ne)

    def relation(a: Ball, b: Ball) -> bool:
        if a is b and not a.value.is_nan():
            return holds(0, 0)
        if (a.index >= 0 or b.index >= 0) and a.value == b.value:
            return a.tape.decide_equal(a, b, holds(0, 0), is_equality)
        return holds(a.value, b.value) or (not fails(a.value, b.value) and a.tape.decide(a, b))

    return relation


Ball.fabs, Ball.conjugate = Ball.__abs__, lambda self: self  # type: ignore[attr-defined]
for _name, _pair in _UNARY.items():
    setattr(Ball, _name, _unary(*_pair))
for _name, _function in _BINARY.items():
    setattr(Ball, f"__{_name}__" if hasattr(operator, _name) else _name, _binary(_function))
    setattr(Ball, f"__r{_name}__", _binary(_function, swapped=True))
for _name, _opposite in (("lt", "ge"), ("le", "gt"), ("gt", "le"), ("ge", "lt"), ("eq", "ne"), ("ne", "eq")):
    setattr(Ball, f"__{_name}__", _binary(_relation(getattr(operator, _name), getattr(operator, _opposite))))
