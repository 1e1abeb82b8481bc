"""Judge the gradient of a whole function of many parameters by the remainders of its Taylor expansion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from math import erf, inf, sqrt
from typing import Any

import numpy as np

from oracles.backends.arrays import array_of, copied, numpy_array, of_memory
from oracles.constants import (
    BLOCK_PAIRS,
    HALF_OF_THE_DIGITS,
    LEAST_SIZE,
    LONE_ARRAYS,
    NEARBY,
    NEARBY_POINTS,
    RESOLUTION_LIMIT,
    SMALLEST_BLOCK,
    TAYLOR_DIRECTIONS,
    TAYLOR_NOISE,
    TAYLOR_SHIFTS,
)
from oracles.decision.type_errors import refuse_exception
from oracles.lazy_modules import jnp
from oracles.notes import note, with_notes
from oracles.numerics import PRECISIONS, unit_roundoff
from oracles.process_state import call_foreign, judging
from oracles.report.compared import number
from oracles.report.disagreement import document, require_conclusive, to_text
from oracles.rule import Array, Function, InvalidInput, ReferenceFailed, is_differentiable
from oracles.signatures import signature_of
from oracles.stages import announce
from oracles.structure import Trees, flattened, place_of
from oracles.taylor_blocks import Block, BlockSearch
from oracles.taylor_lines import Arrays, Line, Noise, Slope, is_contradicted, is_persistent, slope_of
from oracles.user_code import Raised, attempt
from oracles.verdict import SELF_CONSISTENCY, Evidence, Finding, Result, Verdict

# What reports call the oracle.
REMAINDER = "Taylor remainder"
# What a refusal says where no block was looked for, or none was found.
NO_BLOCK = "no block of parameters singled out"


@dataclass(frozen=True)
class Remainders:
    """The remainders of a Taylor expansion along one direction, by step, and what they say.

    Attributes:
        quantity: what was judged: ``⟨gradient, v1⟩``.
        slope: the error of the claimed derivative, with its tolerance.
        size: the expected size of ⟨g, v⟩ for a random v, or its value along a given direction.
        is_random: whether the direction was drawn.
        steps: the steps h.
        orders: for each step the remainders of order 0, 1 and 2: |f(x + hv) − f(x)|; |… − h⟨g, v⟩|; |… − ½h²⟨v, Hv⟩|,
            or |½(f(x + hv) − f(x − hv)) − h⟨g, v⟩| without a Hessian.
        floors: for each step the rounding that each remainder has.
    """

    quantity: str
    slope: Slope
    size: float
    is_random: bool
    steps: tuple[float, ...]
    orders: tuple[tuple[float, float, float], ...]
    floors: tuple[float, ...]

    @property
    def detects_above(self) -> float:
        """The smallest error, relative to the gradient, that would have been refused; infinite if there is none."""
        return self.slope.tolerance / self.size if self.size else inf

    def rates(self) -> list[tuple[float, float, float]]:
        """Return log(R(h) / R(h')) / log(h / h') for each step h and the next one h'; NaN below the rounding."""
        pairs = zip(self.steps, self.steps[1:], self.orders, self.orders[1:], self.floors[1:], strict=False)
        return [tuple(_rate(h, k, a, b, floor) for a, b in zip(r, s, strict=True)) for h, k, r, s, floor in pairs]  # type: ignore[misc]

    def range_of(self, order: int) -> tuple[float, float] | None:
        """Return the smallest and the largest step between which a remainder has the rate of its order plus one."""
        rates = [rate[order] for rate in self.rates()]
        seen = [i for i, rate in enumerate(rates) if abs(rate - (order + 1)) <= HALF_AN_ORDER]
        return (self.steps[seen[-1] + 1], self.steps[seen[0]]) if seen else None


HALF_AN_ORDER = 0.5


def _rate(h: float, k: float, a: float, b: float, floor: float) -> float:
    return float(np.log(a / b) / np.log(h / k)) if b > TAYLOR_NOISE * floor and a > 0 else np.nan


@dataclass(frozen=True)
class TaylorResult(Result):
    """What `taylor` found; a `Result` with the remainders.

    Attributes:
        remainders: one for each direction.
        blocks: the wrong blocks of parameters; none if the gradient is right, or none was looked for.
        evaluations: how many values of ``f`` and how many gradients were taken.
    """

    remainders: tuple[Remainders, ...] = ()
    blocks: tuple[Block, ...] = ()
    evaluations: Mapping[str, int] = field(default_factory=dict)

    def chance_of_missing(self, relative_error: float) -> float:
        """Return the chance that an error of the gradient passes in every random direction.

        For an error δ of g with ‖δ∘s‖ = ε‖g∘s‖, s being the sizes of the direction's entries, ⟨δ, v⟩ is normal with
        that deviation, and it hides below the tolerance τ with the chance erf(τ / (√2 ε ‖g∘s‖)).

        Args:
            relative_error: ε.
        """
        drawn = [r for r in self.remainders if r.is_random and r.quantity.startswith("⟨gradient")]
        chance = 1.0
        for r in drawn:
            chance *= erf(r.detects_above / (sqrt(2) * relative_error)) if relative_error > 0 else 1.0
        return chance

    def __str__(self) -> str:
        """Summarize: the verdict, what would have been refused, the blocks, and the table of one direction."""
        lines = [f"{self.subject}: {self.verdict}  [{self.property_name}]"]
        lines += dict.fromkeys(f"  {f.quantity}: {f.evidence.reason}" for f in self.findings if f.evidence.reason)
        if self.detects_above:
            lines.append(f"  error / tolerance {self.ratio:.2g}; an error of {self.detects_above:.0e} would be refused")
        lines += [f"  wrong: {_block_text(block)}" for block in self.blocks]
        counts = ", ".join(f"{count} {what}" for what, count in self.evaluations.items())
        if self.remainders:
            lines += [f"  {line}" for line in table_of(self.remainders[0])]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, f"  {counts}"])

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return f"<pre>{escape(str(self))}</pre>"

    def to_json(self) -> str:
        """Return the result as JSON: the findings, the remainders by step, and the wrong blocks."""
        diagnosis = self.worst.evidence.diagnosis if self.worst else ""
        remainders = [
            {
                "quantity": r.quantity,
                "claimed": number(r.slope.claimed),
                "measured": number(r.slope.measured),
                "tolerance": number(r.slope.tolerance),
                "noise": number(r.slope.noise),
                "steps": list(r.steps),
                "orders": [[number(v) for v in row] for row in r.orders],
                "rates": [[number(v) for v in row] for row in r.rates()],
            }
            for r in self.remainders
        ]
        blocks = [
            {
                "address": b.address,
                "entries": b.entries,
                "error": number(b.error),
                "tolerance": number(b.tolerance),
                "throughout": b.throughout,
            }
            for b in self.blocks
        ]
        further = {"remainders": remainders, "blocks": blocks, "evaluations": dict(self.evaluations)}
        return to_text(document(self, diagnosis) | further)


def table_of(remainders: Remainders) -> list[str]:
    """Return the remainders of one direction as lines, with the rate from each step to the next."""
    lines = [f"{remainders.quantity}: step, remainder of order 0, 1, 2 with its rate"]
    rates = [*remainders.rates(), (np.nan,) * 3]
    for step, row, rate in zip(remainders.steps, remainders.orders, rates, strict=True):
        cells = [f"{v:.1e} {'' if np.isnan(r) else format(r, '.2f'):>4}" for v, r in zip(row, rate, strict=True)]
        lines.append(f"{step:8.1e}  " + "  ".join(cells).rstrip())
    return lines


def _block_text(block: Block) -> str:
    throughout = ", throughout" if block.throughout else ""
    return f"{block.address} ({block.entries} numbers{throughout})"


def taylor(
    f: Function,
    gradient: Function,
    at: Any,
    *,
    along: Any = None,
    hessian: Function | None = None,
    directions: int = TAYLOR_DIRECTIONS,
    blocks: bool = True,
    smallest_block: int = SMALLEST_BLOCK,
    seed: int = 0,
    name: str | None = None,
) -> TaylorResult:
    """Judge the gradient of a whole function at a point: a loss of a million parameters, a functional of a PDE.

    Along directions v the remainders f(x + hv) − f(x), … − h⟨g, v⟩ and … − ½h²⟨v, Hv⟩ decay like h, h² and h³. The
    slope of the second one at h = 0 is the error ⟨∇f − g, v⟩. Its tolerance is derived from the rounding of ``f``,
    measured by tables of differences, and from the observed decay. The steps are found, none is given. If the
    gradient is wrong, random projections on halved blocks name where.

    Args:
        f: ``f(params)`` returns a real number. It must be deterministic.
        gradient: ``gradient(params)`` returns the gradient in the structure of params; ``None`` for an array: none.
        at: the point: an array of NumPy, torch or JAX, or a tree of them; float64, float32 or coarser.
        along: a direction in the structure of params; by default `directions` random ones, of the size of each array.
        hessian: ``hessian(params, v)`` returns the product Hv; judged against differences of the gradient.
        directions: the number of random directions.
        blocks: whether each array is judged by itself too, and wrong blocks are looked for.
        smallest_block: a wrong block of so many numbers is not divided further.
        seed: the seed of the directions.
        name: what reports call the subject.

    Returns:
        The `TaylorResult`: remainders and rates, verdicts, the smallest relative error that would have been refused.

    Raises:
        Disagreement: (an AssertionError) if the gradient is refused.
        InvalidInput: (a TypeError and a ValueError) if ``f`` returns no finite number, is not deterministic, or the
            gradient has another structure.
        ReferenceFailed: if ``f`` raises at the point.

    Example:
        >>> oracles.taylor(lambda x: (x**4).sum(), lambda x: 4 * x**3, np.linspace(1, 2, 10**6)).verdict
        <Verdict.AGREES: 'agrees'>
    """
    if directions < 1:
        raise InvalidInput(f"taylor: directions: expected 1 or more, got {directions!r}")
    with judging(), np.errstate(all="ignore"):
        functional = _functional(f, gradient, hessian, at, name)
        return _required(_judged(functional, along, directions, blocks, smallest_block, seed))


def _required(result: Result) -> TaylorResult:
    assert isinstance(result, TaylorResult)
    require_conclusive(result)
    return result


@dataclass
class _Functional:
    """The functions of a user, as functions of arrays of NumPy by name.

    Attributes:
        f, gradient, hessian: the functions.
        label: what reports call the gradient.
        argument: what the parameters are called.
        trees: their structure.
        leaves: the arrays as they were given.
        point: the same as arrays of NumPy.
        counts: how often each function was called.
    """

    f: Function
    gradient: Function
    hessian: Function | None
    label: str
    argument: str
    trees: Trees
    leaves: Mapping[str, Any]
    point: Mapping[str, Array]
    counts: dict[str, int] = field(default_factory=lambda: {"values of f": 0, "gradients": 0})

    def value(self, arrays: Arrays) -> float:
        """Return f at a point; NaN where it raises: its domain may end there."""
        self.counts["values of f"] += 1
        result = attempt(lambda: call_foreign(self.f, self._params(arrays)), reraise=(InvalidInput,))
        return np.nan if isinstance(result, Raised) else self._number(result)

    def start(self) -> float:
        """Return f at the point.

        Raises:
            ReferenceFailed: if it raises.
            InvalidInput: if it is no finite number, or another one in a second call.
        """
        self.counts["values of f"] += 1
        result = attempt(lambda: call_foreign(self.f, self._params(self.point)), reraise=(InvalidInput,))
        if isinstance(result, Raised):
            error = result.error
            raise ReferenceFailed(f"{self.label}: f raised {type(error).__name__}: {error}") from error
        value = self._number(result)
        if not np.isfinite(value):
            raise InvalidInput(f"{self.label}: f: expected a finite number at the point, got {value}")
        self.require_same(value, self.value(self.point))
        return value

    def require_same(self, value: float, again: float) -> None:
        """Require that two values at one point differ by rounding at most."""
        if not abs(again - value) <= self.unit**HALF_OF_THE_DIGITS * abs(value):
            raise InvalidInput(
                f"{self.label}: f: expected a deterministic function, got {value!r} and then {again!r} at one point."
                "\nFix: draw the same random numbers in every call: set the seed inside f and inside the gradient, or "
                "switch dropout off"
            )

    def gradient_at(self, arrays: Arrays) -> dict[str, Array] | Finding:
        """Return the gradient by array, or the finding that it is none.

        Raises:
            InvalidInput: if it has another structure than the parameters.
        """
        self.counts["gradients"] += 1
        params = self._params(arrays)
        result = attempt(lambda: call_foreign(self.gradient, params), reraise=(InvalidInput,))
        if isinstance(result, Raised):
            return replace(refuse_exception("the gradient", result.error), oracle=REMAINDER)
        finding = self._written(params, arrays)
        return finding or self._cotangents(result)

    def product_at(self, direction: Arrays) -> dict[str, Array] | Finding:
        """Return the product of the Hessian and a direction, or the finding that it is none."""
        assert self.hessian is not None
        v = self._params({n: direction[n].astype(a.dtype) if n in direction else a for n, a in self.point.items()})
        hessian, params = self.hessian, self._params(self.point)
        result = attempt(lambda: call_foreign(hessian, params, v), reraise=(InvalidInput,))
        if isinstance(result, Raised):
            return replace(refuse_exception("the Hessian's product", result.error), oracle=REMAINDER)
        return self._cotangents(result)

    def _cotangents(self, result: Any) -> dict[str, Array] | Finding:
        given = self.trees.cotangents({self.argument: result}, self.point, self.label)
        arrays: dict[str, Array] = {}
        for n, value in given.items():
            if value is None or not is_differentiable(self.point[n]):
                continue
            array = numpy_array(n, value)
            shape = self.point[n].shape
            if array.shape != shape:
                return _refused(n, f"shape {array.shape}, expected {shape}")
            if not np.all(np.isfinite(np.asarray(array, np.float64))):
                bad = np.argwhere(~np.isfinite(np.asarray(array, np.float64)))
                first = tuple(int(i) for i in bad[0])
                return _refused(n, f"NaN or ±inf in {len(bad)} of {array.size} entries, first at {list(first)}")
            arrays[n] = array
        return arrays

    def _written(self, params: Any, arrays: Arrays) -> Finding | None:
        for n, value in flattened({self.argument: params})[1].items():
            if not np.array_equal(np.asarray(array_of(value)), arrays[n], equal_nan=is_differentiable(arrays[n])):
                return replace(_refused(n, "the gradient writes into the parameters"), oracle=SELF_CONSISTENCY)
        return None

    @property
    def unit(self) -> float:
        """The unit roundoff of the coarsest array."""
        return max(unit_roundoff(a.dtype) for a in self.point.values() if is_differentiable(a))

    def _params(self, arrays: Arrays) -> Any:
        values = {n: _like(self.leaves[n], arrays[n]) for n in self.leaves}
        return self.trees.rebuilt(values)[self.argument]

    def _number(self, value: Any) -> float:
        array = np.asarray(array_of(value))
        if array.size != 1 or array.dtype.kind in "cOUS":
            raise InvalidInput(
                f"{self.label}: f: expected a real number, got shape {array.shape}, dtype {array.dtype}.\n"
                "Fix: return a scalar:    loss.sum()"
            )
        return float(array.reshape(()).astype(np.float64))


def _like(given: Any, array: Array) -> Any:
    """Return a copy of an array in the framework of another one."""
    module = type(given).__module__.partition(".")[0]
    if module == "torch":
        return of_memory(np.array(array, order="C", copy=True)).to(given.device).requires_grad_(given.requires_grad)
    if module in ("jax", "jaxlib"):
        return jnp.asarray(array)
    if isinstance(given, bool | int | float):
        return array[()].item()
    return np.array(array, copy=True)


def _refused(quantity: str, reason: str) -> Finding:
    return Finding(quantity, REMAINDER, Verdict.WRONG, True, inf, evidence=Evidence(reason=reason, diagnosis=NO_BLOCK))


def _functional(f: Function, gradient: Function, hessian: Function | None, at: Any, name: str | None) -> _Functional:
    for what, function in (("f", f), ("gradient", gradient), *([("hessian", hessian)] if hessian else [])):
        if not callable(function):
            raise InvalidInput(f"taylor: {what}: expected a function of the parameters, got {function!r:.60}")
    signature = signature_of(f)
    first = next(iter(signature.parameters), "params") if signature else "params"
    argument = first if first not in ("args", "kwargs") else "params"
    trees, leaves = flattened({argument: at})
    point = {n: copied(numpy_array(place_of(n, {argument: at}), value)) for n, value in leaves.items()}
    if not any(is_differentiable(a) and a.size for a in point.values()):
        raise InvalidInput(f"taylor: at: expected floating parameters, got none in {at!r:.60}")
    label = name or str(getattr(gradient, "__name__", "gradient"))
    return _Functional(f, gradient, hessian, label, argument, trees, leaves, point)


@with_notes
def _judged(
    functional: _Functional, along: Any, directions: int, blocks: bool, smallest_block: int, seed: int
) -> Result:
    """Return the result of `taylor`, whatever it says."""
    announce("evaluating the function and its gradient")
    start = functional.start()
    g = functional.gradient_at(functional.point)
    if isinstance(g, Finding):
        return _result(functional, [g])
    rng = np.random.default_rng(seed)
    judge = _Judge(functional, start, g, rng)
    unclaimed = tuple(n for n, a in functional.point.items() if is_differentiable(a) and n not in g)
    if not g:
        raise InvalidInput(f"{functional.label}: expected a gradient, got None for every array of the parameters")
    finding = judge.compare_calls()
    if finding is not None:
        return _result(functional, [finding], unclaimed)
    given = judge.given_direction(along) if along is not None else None
    lines = [given] if given is not None else [judge.drawn() for _ in range(directions)]
    findings, remainders = [], []
    for i, v in enumerate(lines, 1):
        announce(f"measuring remainders along direction {i} of {len(lines)}")
        quantity = f"⟨gradient, v{i}⟩"
        slope, line = judge.slope_along(v)
        remainders.append(judge.remainders(quantity, slope, line, given is None))
        findings.append(judge.finding(remainders[-1], v, line))
        if findings[-1].refuses:
            break
    wrong: list[Block] = []
    if blocks:
        announce("judging blocks of parameters")
        wrong = judge.blocks(lines, remainders, findings, smallest_block)
    if wrong:
        text = ", ".join(map(_block_text, wrong))
        findings = [_diagnosed(f, f"wrong in {text}") for f in findings]
    if functional.hessian is not None:
        findings += judge.second_order(lines[0], remainders)
    functional.require_same(start, functional.value(functional.point))
    return _result(functional, findings, unclaimed, remainders, wrong)


def _diagnosed(finding: Finding, text: str) -> Finding:
    return replace(finding, evidence=replace(finding.evidence, diagnosis=text)) if finding.refuses else finding


def _result(
    functional: _Functional,
    findings: Sequence[Finding],
    unclaimed: tuple[str, ...] = (),
    remainders: Sequence[Remainders] = (),
    blocks: Sequence[Block] = (),
) -> TaylorResult:
    return TaylorResult(
        functional.label,
        "taylor",
        tuple(findings),
        not_claimed=unclaimed,
        remainders=tuple(remainders),
        blocks=tuple(blocks),
        evaluations=dict(functional.counts),
    )


class _Judge:
    """The judgement of one gradient at one point."""

    def __init__(self, functional: _Functional, start: float, g: Arrays, rng: np.random.Generator) -> None:
        self.functional, self.start, self.rng = functional, start, rng
        self.g = {n: np.asarray(a, np.float64) for n, a in g.items()}
        self.unit = max(functional.unit, *(unit_roundoff(a.dtype) for a in g.values()))
        self.scales = self._scales()
        self.moved = {n: np.zeros(a.shape) for n, a in self.g.items()}
        self.values = [start]
        self.curvature = np.nan

    def _scales(self) -> dict[str, float]:
        """Return the size of each array, or that of all where it is next to nothing: zeros of a new bias."""
        sizes = {n: float(np.sqrt(np.mean(np.asarray(self.functional.point[n], np.float64) ** 2))) for n in self.g}
        total = sum(a.size for a in self.g.values())
        overall = sqrt(sum(s * s * self.g[n].size for n, s in sizes.items()) / max(total, 1)) or 1.0
        return {n: s if s > LEAST_SIZE * overall else overall for n, s in sizes.items()}

    def compare_calls(self) -> Finding | None:
        """Return the finding that a second call of the gradient differs, and measure how rounding moves it."""
        point, functional = self.functional.point, self.functional
        elsewhere = self.drawn()
        for t in (2.0**-12, 2.0**-14, 2.0**-16):
            there = {n: (np.asarray(point[n], np.float64) + t * v).astype(point[n].dtype) for n, v in elsewhere.items()}
            self.values.append(functional.value({**point, **there}))
        again = functional.gradient_at(point)
        if isinstance(again, Finding):
            return again
        for n, a in self.g.items():
            off = float(np.linalg.norm(np.asarray(again[n], np.float64) - a)) if n in again else inf
            if not off <= self.unit**HALF_OF_THE_DIGITS * float(np.linalg.norm(a)):
                reason = "another gradient in a second call, after f was evaluated elsewhere: it is random or has state"
                return replace(_refused(n, reason), oracle=SELF_CONSISTENCY)
        signs = {n: self.rng.choice((-1.0, 1.0), a.shape) for n, a in self.g.items()}
        near = {
            n: (np.asarray(point[n], np.float64) * (1 + self.unit * s)).astype(point[n].dtype) for n, s in signs.items()
        }
        rounded = functional.gradient_at({**point, **near})
        if not isinstance(rounded, Finding):
            self.moved = {n: np.asarray(rounded[n], np.float64) - a for n, a in self.g.items() if n in rounded}
        return None

    def drawn(self) -> dict[str, Array]:
        """Draw a direction: normal numbers of the size of each array."""
        return {n: scale * self.rng.standard_normal(self.g[n].shape) for n, scale in self.scales.items()}

    def given_direction(self, along: Any) -> dict[str, Array]:
        """Return a direction that was given, by array.

        Raises:
            InvalidInput: if it has not the structure of the parameters, or is zero.
        """
        functional = self.functional
        leaves = flattened({functional.argument: along})[1]
        direction = {}
        for n in self.g:
            expected = functional.point[n].shape
            array = numpy_array("along", leaves[n]) if n in leaves else None
            if array is None or array.shape != expected:
                got = "nothing" if array is None else f"shape {array.shape}"
                raise InvalidInput(f"taylor: along: {n}: expected shape {expected} like the parameters, got {got}")
            direction[n] = np.asarray(array, np.float64)
        size = sum(float(np.vdot(v, v)) for v in direction.values())
        if not 0 < size < inf:
            raise InvalidInput("taylor: along: expected a finite direction that is not zero")
        return direction

    def floor(self) -> float:
        """Return the rounding of the value itself, in the coarsest precision that every value has: u·|f|."""
        values = np.array([v for v in self.values if np.isfinite(v)])
        units = [2.0**-53]
        for precision, (unit, _) in PRECISIONS.items():
            if np.array_equal(values.astype(_dtype(precision)).astype(np.float64), values):
                units.append(unit)
        return max(units) * abs(self.start)

    def line(self, direction: Arrays) -> Line:
        """Return the line of f along a direction."""

        def claimed_change(t: float, displacement: Arrays) -> float:
            return sum(float(np.vdot(self.g[n], d)) for n, d in displacement.items())

        return Line(self.functional.value, claimed_change, self.functional.point, direction, self.start)

    def extra(self, direction: Arrays, is_random: bool = True) -> float:
        """Return how far the rounding of the gradient moves ⟨g, v⟩.

        Under a random direction the errors of the entries add up like their squares, whatever they are; under a given
        one like their sizes.
        """
        sums = 0.0
        for n, v in direction.items():
            moved, own = np.abs(v * self.moved.get(n, 0.0)), self.unit * np.abs(v * self.g[n])
            sums += float(np.sum((moved + own) ** 2)) if is_random else float(np.sum(moved + own))
        dot = sum(float(np.sum(np.abs(v * self.g[n]))) for n, v in direction.items())
        return TAYLOR_NOISE * (sqrt(sums) if is_random else sums) + 2.0**-53 * dot

    def slope_along(self, direction: Arrays, is_random: bool = True) -> tuple[Slope, Line]:
        """Return the slope of the remainder along a direction; an error is confirmed on further ladders of steps."""
        line = self.line(direction)
        first, noise, extra = line.first_step(), Noise(self.floor()), self.extra(direction, is_random)
        return confirmed(line, first, noise, extra), line

    def remainders(self, quantity: str, slope: Slope, line: Line, is_random: bool) -> Remainders:
        """Return the table of a direction."""
        orders = []
        for h in slope.steps:
            up, down = line.remainder(h), line.remainder(-h)
            third = (up - down) / 2 if np.isnan(self.curvature) else up - h * h / 2 * self.curvature
            orders.append((abs(line.change(h)), abs(up), abs(third)))
        norm = sqrt(sum(float(np.vdot(v, v)) * self.scales[n] ** 2 for n, v in self.g.items() if n in line.direction))
        size = max(norm if is_random else abs(slope.claimed), abs(slope.measured))
        floors = tuple(slope.noise for _ in slope.steps)
        return Remainders(quantity, slope, size, is_random, slope.steps, tuple(orders), floors)

    def finding(self, remainders: Remainders, direction: Arrays, line: Line) -> Finding:
        """Return the verdict of one direction."""
        slope = remainders.slope
        if slope.refuses and not slope.kink and is_persistent(line, slope):
            return _finding(remainders, Verdict.WRONG, _rate_text(remainders))
        if slope.refuses and is_contradicted(line, slope):
            text = "f has the claimed slope at the smallest steps, and another one at larger ones: it is a staircase"
            return _finding(remainders, Verdict.VACUOUS, f"{text}, or has a narrow feature")
        if slope.refuses or slope.kink:
            return self._asked_nearby(remainders, direction)
        if remainders.detects_above > RESOLUTION_LIMIT:
            return _finding(remainders, Verdict.VACUOUS, self._why_nothing(remainders, line))
        return _finding(remainders, Verdict.AGREES, "")

    def _why_nothing(self, remainders: Remainders, line: Line) -> str:
        slope, precision = remainders.slope, max(a.dtype.name for a in self.functional.point.values())
        if len(slope.steps) < 3:
            if not line.moves(line.first_step() / 64):
                return f"{precision} is too coarse for three steps: the rounding of the parameters hides them"
            return "f has no finite value within most steps: the point lies at the end of its domain"
        if max(abs(slope.claimed), abs(slope.measured)) <= slope.tolerance < inf:
            return f"a slope of 0 up to {slope.tolerance:.1e}: the point is stationary, as far as f's rounding shows"
        if slope.rounding >= 1 / 2:
            return (
                f"no step is large against the rounding of f ({slope.noise:.1e}) and small against its curvature; "
                "compute f in a finer precision"
            )
        return "no range of steps converges: f is not smooth, or jumps, next to the point"

    def _asked_nearby(self, remainders: Remainders, direction: Arrays) -> Finding:
        """Return the verdict on an error that a kink, or a narrow feature of f, may explain.

        It must be the same nearby. A gradient that is wrong in its formula is wrong there too. Of a feature that is
        narrower than every step above the rounding of f, differences say nothing.
        """
        slope = remainders.slope
        narrow = "differences of f have another slope, but over few steps: f may have a feature that is narrower"
        reason = _kink_text(slope) if slope.gap else narrow
        there = [self._slope_nearby(direction) for _ in range(NEARBY_POINTS)]
        same = [
            t is not None and t.refuses and not t.kink
            and (slope.kink or abs(t.error - slope.error) <= abs(slope.error) / 2)
            for t in there
        ]  # fmt: skip
        first = there[0]
        if first is not None and all(same):
            text = f"the same at points nearby, at one of which {first.claimed:.6g} is claimed for {first.measured:.6g}"
            return _finding(remainders, Verdict.WRONG, f"{_kink_text(slope)}; {text}" if slope.gap else text)
        return _finding(remainders, Verdict.KINK if slope.gap else Verdict.VACUOUS, reason)

    def _slope_nearby(self, direction: Arrays) -> Slope | None:
        """Return the slope along a direction at a point nearby; ``None`` where there is no gradient or no value."""
        point, shifts = self.functional.point, self.drawn()
        near = {n: (np.asarray(point[n], np.float64) + NEARBY * v).astype(point[n].dtype) for n, v in shifts.items()}
        nearby = replace(self.functional, point={**point, **near})
        start, g = nearby.value(nearby.point), nearby.gradient_at(nearby.point)
        if isinstance(g, Finding) or not np.isfinite(start):
            return None
        judge = _Judge(nearby, start, {n: a for n, a in g.items() if n in self.g}, self.rng)
        judge.values, judge.moved = self.values, self.moved
        return judge.slope_along(direction)[0]

    def blocks(
        self, lines: Sequence[Arrays], remainders: Sequence[Remainders], findings: list[Finding], smallest: int
    ) -> list[Block]:
        """Return the wrong blocks; add a finding for each array, or group of arrays, that is judged by itself."""
        refused = [i for i, f in enumerate(findings) if f.verdict is Verdict.WRONG]
        usable = [i for i, f in enumerate(findings) if f.verdict in (Verdict.WRONG, Verdict.AGREES)]
        if not usable:
            return []
        i = max(refused or usable, key=lambda k: findings[k].ratio)
        slope, direction = remainders[i].slope, lines[i]
        noise = Noise(max(self.floor(), slope.noise))
        search = BlockSearch(self.line, direction, slope.step, noise, smallest, BLOCK_PAIRS, extra=self.extra)
        if refused:
            whole = Block("", sum(v.size for v in direction.values()), slope.error, slope.tolerance, slope.claimed)
            found = search.wrong_blocks(search.whole(list(direction)), whole)
            self.functional.counts["pairs of values for blocks"] = search.taken
            return found
        names = list(direction)
        wrong: list[Block] = []
        groups = np.array_split(np.arange(len(names)), min(len(names), LONE_ARRAYS)) if len(names) > 1 else []
        for indices in groups:
            region = search.whole([names[k] for k in indices])
            if not search.can_measure():
                break
            wrong += self._judged_alone(search, region, findings)
        self.functional.counts["pairs of values for blocks"] = search.taken
        return wrong

    def _judged_alone(self, search: BlockSearch, region: Any, findings: list[Finding]) -> list[Block]:
        block = search.measured(region)
        part = search.part_of_direction(region)
        norm = sqrt(sum(float(np.vdot(self.g[n], self.g[n])) * self.scales[n] ** 2 for n in region))
        if not block.is_wrong and block.tolerance <= RESOLUTION_LIMIT * norm:
            ratio = abs(block.error) / block.tolerance
            findings.append(
                Finding(block.address, REMAINDER, Verdict.AGREES, False, ratio, block.tolerance / norm, judged=(1, 1))
            )
            return []
        # Two steps that serve for the whole need not serve for a part of another size.
        slope, line = self.slope_along(part)
        remainders = self.remainders(block.address, slope, line, True)
        if not slope.refuses:
            if remainders.detects_above > RESOLUTION_LIMIT:
                note(f"{block.address}: not resolved by itself: {self._why_nothing(remainders, line)}")
            else:
                findings.append(_finding(remainders, Verdict.AGREES, ""))
            return []
        finding = self.finding(remainders, part, line)
        findings.append(finding)
        if not finding.refuses:
            return []
        known = replace(block, error=slope.error, tolerance=slope.tolerance)
        own = replace(search, step=slope.step, noise=Noise(max(self.floor(), slope.noise)))
        found = own.wrong_blocks(region, known)
        search.taken = own.taken
        return found

    def second_order(self, direction: Arrays, remainders: list[Remainders]) -> list[Finding]:
        """Return the finding on the Hessian's product with a direction, from differences of the gradient."""
        functional = self.functional
        product = functional.product_at(direction)
        if isinstance(product, Finding):
            return [product]
        w = self.drawn()

        def of_gradient(arrays: Arrays) -> float:
            g = functional.gradient_at(arrays)
            return np.nan if isinstance(g, Finding) else sum(float(np.vdot(g[n], w[n])) for n in w if n in g)

        claimed = sum(float(np.vdot(product[n], w[n])) for n in w if n in product)
        self.curvature = sum(float(np.vdot(product[n], direction[n])) for n in direction if n in product)
        start = sum(float(np.vdot(self.g[n], w[n])) for n in w)
        line = Line(of_gradient, lambda t, _: t * claimed, functional.point, direction, start)
        norms = [sqrt(sum(float(np.sum((a[n] * w[n]) ** 2)) for n in w if n in a)) for a in (self.g, product)]
        slope = confirmed(line, line.first_step(), Noise(self.unit * norms[0]), TAYLOR_NOISE * self.unit * norms[1])
        own = self.remainders("⟨w1, Hessian v1⟩", slope, line, False)
        own = replace(own, size=max(norms[1], abs(slope.measured)))
        remainders[0] = self.remainders(remainders[0].quantity, remainders[0].slope, self.line(direction), True)
        return [self.finding(own, direction, line)]


def confirmed(line: Line, first: float, noise: Noise, extra: float) -> Slope:
    """Return the slope of a remainder; an error counts if further ladders of steps give the same one."""
    slope = slope_of(line, first, noise, extra)
    if not slope.refuses:
        return slope
    for shift in TAYLOR_SHIFTS:
        again = slope_of(line, first * shift, noise, extra)
        same = abs(again.error - slope.error) <= abs(slope.error) / 2
        if not (again.refuses and same):
            return replace(slope, tolerance=max(abs(slope.error), abs(again.error), again.tolerance))
    return slope


def _dtype(precision: str) -> Any:
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, precision, precision))


def _finding(remainders: Remainders, verdict: Verdict, reason: str) -> Finding:
    slope = remainders.slope
    ratio = abs(slope.error) / slope.tolerance if slope.tolerance else (inf if slope.error else 0.0)
    is_vacuous = verdict is Verdict.VACUOUS
    return Finding(
        remainders.quantity,
        REMAINDER,
        verdict,
        verdict is Verdict.WRONG,
        ratio if np.isfinite(ratio) else 0.0,
        0.0 if is_vacuous or not np.isfinite(remainders.detects_above) else remainders.detects_above,
        Evidence(
            subject=slope.claimed,
            oracles={REMAINDER: slope.measured},
            tolerance=slope.tolerance,
            refused=(1, 1) if verdict is Verdict.WRONG else (0, 1),
            reason=reason,
            diagnosis=NO_BLOCK if verdict is Verdict.WRONG else "",
        ),
        judged=(0, 1) if is_vacuous else (1, 1),
    )


def _kink_text(slope: Slope) -> str:
    where = "no derivative at this point" if slope.kink else "a kink in reach of every step"
    return f"{where}: the one-sided slopes differ by {2 * slope.gap:.3g}"


def _rate_text(remainders: Remainders) -> str:
    """Return at which rate the remainder of order 2 decays where the gradient is wrong."""
    rates = [
        (rate[2], h) for rate, h in zip(remainders.rates(), remainders.steps, strict=False) if np.isfinite(rate[2])
    ]
    if not rates:
        return "differences of f have another slope"
    last = [r for r, _ in rates[-3:]]
    rate, least = float(np.median(last)), rates[-1][1]
    return f"the remainder of order 2 decays like h^{rate:.2f}, not h^3, down to the step {least:.1e}"
