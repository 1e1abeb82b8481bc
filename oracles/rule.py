"""The Rule, a differentiable operation: primals -> (output, pullback). Subjects and oracles are Rules alike.

    rule(**primals) -> (y, pullback)        pullback(delta) -> {name: cotangent}

``delta`` is the cotangent ∂L/∂y of the output; a cotangent ∂L/∂p has the shape and dtype of its primal p.
Integer and boolean primals (indices, masks, labels) have no cotangent. ``y`` and ``delta`` may be tuples of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from oracles.options import did_you_mean
from oracles.process_state import call_foreign

Function: TypeAlias = Callable[..., Any]  # code of the user's, for which no types are known
Array: TypeAlias = npt.NDArray[Any]
Output: TypeAlias = Array | tuple[Array, ...]
Delta: TypeAlias = Output  # the cotangent of an output: the same structure, shapes and dtypes
Primals: TypeAlias = Mapping[str, Array]
# An oracle's cotangents are arrays or enclosures. A subject's may be anything: the judge reports anything but an array.
Cotangent: TypeAlias = Any
Cotangents: TypeAlias = dict[str, Cotangent]
Pullback: TypeAlias = Callable[[Delta], Cotangents]
Evaluate: TypeAlias = Callable[..., tuple[Output, Pullback]]  # called with the primals by name


@dataclass(frozen=True, eq=False)
class Enclosure:
    """A certified enclosure: a value known up to a radius, ``|truth − mid| ≤ radius`` entry by entry.

    Oracles that know their own error (finite differences, ball arithmetic) return these as cotangents; the others
    return arrays.

    Attributes:
        mid: the midpoints, in float64.
        radius: the radii, in the same shape.
        rounding: a rigorous bound on how far any rounding of the subject's own primal can be from the truth;
            ``None`` if it is not known, so that a tolerance bounds the rounding.
    """

    mid: Array
    radius: Array
    rounding: Array | None = None


Answer: TypeAlias = Array | Enclosure  # what an oracle computes: one output or one cotangent


class RoundingErrors(NamedTuple):
    """The sizes of the simulated rounding errors of an operation, as fractions of an operand.

    Attributes:
        own: of each entry, independent of the others.
        common: of all entries together, since the partial sums of equal terms are all rounded the same way.
    """

    own: float
    common: float = 0.0


class Perturbation(NamedTuple):
    """Simulated rounding: an operand x becomes ``x (1 ± relative) ± absolute``, with independent random signs.

    Attributes:
        rng: draws the signs.
        relative: the size of a simulated rounding error, as a fraction of the operand.
        absolute: the size of a simulated underflow error.
        forward: whether the forward is perturbed too. If not, the pullback alone is, at unperturbed residuals.
        accumulated: the size of a simulated rounding error of a partial sum, where sums are kept in another precision
            than their operands; ``None`` where it is ``relative``.
        multiplied: that of the operands of matrix products and convolutions besides, where they are rounded to a
            coarser precision; 0 where they are not.
    """

    rng: np.random.Generator
    relative: float
    absolute: float = 0.0
    forward: bool = True
    accumulated: float | None = None
    multiplied: float = 0.0

    def of_length(self, terms: int, product: bool = False) -> RoundingErrors:
        """Return the sizes of simulated rounding errors in a reduction of so many terms.

        The error of a sum is ``relative · √terms``, or ``relative + accumulated · √terms``; in a ``product`` of
        matrices ``multiplied`` is added.
        """
        extra = self.multiplied if product else 0.0
        if terms <= 1:
            return RoundingErrors(self.relative + extra)
        growth = float(terms**0.5)
        if self.accumulated is None:
            return RoundingErrors(self.relative * growth + extra, self.relative * growth)
        return RoundingErrors(self.relative + self.accumulated * growth + extra, self.accumulated * growth)

    def times(self, share: float) -> Perturbation:
        """Return a share of the perturbation, all sizes alike."""
        return self._replace(
            relative=share * self.relative,
            absolute=share * self.absolute,
            accumulated=None if self.accumulated is None else share * self.accumulated,
            multiplied=share * self.multiplied,
        )


class InvalidInput(TypeError, ValueError):
    """Invalid arguments. The message states what was expected, what was given, and the line to write instead."""


class Unimplemented(InvalidInput, NotImplementedError):
    """The subject raised NotImplementedError, which is ``__cause__``: it has no answer here, right or wrong."""


class ReferenceFailed(RuntimeError):
    """A reference raised an exception, so nothing is known about the subject. ``__cause__`` is that exception."""


class InternalError(RuntimeError):
    """A part of the judge raised an exception, so nothing is known about the subject. ``__cause__`` is it."""


class NotPerturbable(NotImplementedError):
    """The operations of a rule cannot be perturbed at this point, since they run outside Python's reach."""


class Runtime(Enum):
    """What executes the arithmetic of a rule."""

    NUMPY = "numpy"  # NumPy calls in this process
    TORCH = "torch"
    JAX = "jax"
    CUPY = "cupy"
    OPAQUE = "opaque"  # anything else: compiled code, another process, numbers that are objects


class Convention:
    """How the cotangents of a subject may differ from those of a reference, without being wrong.

    Adapters override the methods that they need; these here say that nothing may differ.
    """

    def read_error(self, primals: Primals, delta: Delta, u: float) -> Mapping[str, Array]:
        """Bound the error made in reading each cotangent off the subject; ``u`` is the unit roundoff."""
        return {}

    def violations(self, primals: Primals, delta: Delta, cotangents: Cotangents, precision: str) -> Mapping[str, str]:
        """Describe, by primal, how the subject's cotangents break the convention that it declares."""
        return {}

    def adjusted(
        self, primals: Primals, cotangents: Mapping[str, Cotangent], answers: Mapping[str, Mapping[str, Answer]]
    ) -> Mapping[str, Mapping[str, Answer]]:
        """Return the oracles' answers, by oracle, with those entries replaced that the convention decides."""
        return answers

    def tolerances(self, tolerances: Mapping[str, Array], values: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the tolerances of outputs and cotangents, whose ``values`` are those, as the convention has them."""
        return tolerances

    def nearest_point(self, primals: Primals) -> Primals:
        """Return the drawn point as the convention demands it: symmetric where a primal is declared so."""
        return primals

    def aligned(self, subject: Rule, oracles: tuple[Rule, ...], primals: Primals) -> tuple[Rule, tuple[Rule, ...]]:
        """Return subject and oracles with the outputs that a problem leaves open chosen alike, at one point.

        Raises:
            InvalidInput: if the point itself breaks the convention.
        """
        return subject, oracles

    def of_pullback(self) -> Convention:
        """Return the convention of the pullback as a subject, see `oracles.second_order`."""
        return Convention()

    def pulled_oracle(self, pulled: Rule, wrt: tuple[str, ...]) -> Rule:
        """Return an oracle's pullback as a rule, with its outputs, the cotangents of ``wrt``, as the subject's are."""
        return pulled


class Structured(NamedTuple):
    """How to make a rule of the leaves of trees, see `oracles.structure`.

    Attributes:
        evaluate: the evaluation that it belongs to: whoever replaces that has another rule.
        make: makes the Rule, of an `oracles.structure.Trees`.
    """

    evaluate: Evaluate
    make: Callable[[Any], Rule]


class Derived(NamedTuple):
    """How to make the rules of what a rule derives, see `oracles.second_order` and `oracles.forward_mode`.

    Attributes:
        evaluate: the evaluation that they belong to: whoever replaces that has other derivatives.
        second: makes the Rule of the pullback, a function of the primals and of the outputs' cotangents. It takes the
            primals whose cotangents it returns, and the names of the outputs' cotangents. ``None`` if the rule cannot
            be differentiated twice.
        tangent: makes the Rule of the directional derivative, a function of the primals and of their tangents, of
            which it takes the names by primal. ``None`` if there is none.
        primal: compiles the primal for the shapes of a point: what it returns takes primals, and returns the outputs.
            ``None`` where a plain call is as fast.
    """

    evaluate: Evaluate
    second: Callable[[tuple[str, ...], tuple[str, ...]], Rule] | None = None
    tangent: Callable[[Mapping[str, str]], Rule] | None = None
    primal: Callable[[Primals], Function] | None = None

    def wrapped(self, evaluate: Evaluate, wrap: Callable[[Rule], Rule], *, in_place: bool = False) -> Derived:
        """Return those of a rule that wraps another one, whose evaluation is ``evaluate``.

        ``in_place`` says that it runs in the same process, on the same device.
        """
        second, tangent = self.second, self.tangent
        return Derived(
            evaluate,
            None if second is None else lambda wrt, deltas: wrap(second(wrt, deltas)),
            None if tangent is None else lambda names: wrap(tangent(names)),
            self.primal if in_place else None,
        )


EvaluatePerturbed: TypeAlias = Callable[[Primals, Delta, Perturbation], tuple[tuple[Array, ...], Cotangents]]


@dataclass(frozen=True)
class Rule:
    """A differentiable operation: ``rule(**primals)`` returns ``(y, pullback)``.

    Attributes:
        evaluate: the function behind ``rule(**primals)``.
        name: what reports call it: "torch", "jax", "Linear(n_in=3, n_out=2)".
        evaluate_perturbed: ``evaluate_perturbed(primals, delta, perturbation) -> (outputs, cotangents)`` evaluates
            output and pullback with every floating operand of every rounding operation perturbed, or raises
            `NotPerturbable`; ``None`` if the rule can never be perturbed. `oracles.tolerance` derives tolerances
            from it.
        reference: the primal that a framework differentiates, as its user wrote it.
        runtime: what executes the arithmetic.
        implementation: the object that the rule was made from (a layer, a class, a pair of functions), if any.
        adapt: makes a Rule of another such object in the same way.
        call_patterns: further ways to call the same subject, by name; each must give what ``evaluate`` gives.
        convention: how the subject's cotangents may differ from a reference's, see `oracles.declared`.
        numerics: what it stores, accumulates and multiplies in, if it is declared, see `oracles.Numerics`.
        device: where its arrays lie while it is evaluated, "cuda"; ``None`` if nothing is said.
        structured: makes a Rule of the same subject that takes the leaves of trees; ``None`` if it takes arrays alone.
        derived: makes the Rules of its second derivative and of its forward mode, where it has them.
    """

    evaluate: Evaluate
    name: str = "rule"
    evaluate_perturbed: EvaluatePerturbed | None = None
    reference: Function | None = None
    runtime: Runtime = Runtime.NUMPY
    implementation: Any = None
    adapt: Callable[[Any], Rule] | None = None
    call_patterns: Mapping[str, Evaluate] = field(default_factory=dict)
    convention: Convention = field(default_factory=Convention)
    numerics: Any = None  # an oracles.numerics.Numerics; that module imports this one
    device: str | None = None
    structured: Structured | None = None
    derived: Derived | None = None

    @property
    def derivatives(self) -> Derived:
        """How to make the rules of what it derives; none of them for a rule whose evaluation was replaced."""
        derived = self.derived
        return derived if derived is not None and derived.evaluate == self.evaluate else Derived(self.evaluate)

    @property
    def runs_on_object_arrays(self) -> bool:
        """Whether the rule may be evaluated on subclasses of `np.ndarray` and on arrays of objects, as NumPy may."""
        return self.runtime is Runtime.NUMPY

    @property
    def is_bitwise_reproducible(self) -> bool:
        """Whether equal inputs must give equal bits, as in NumPy; other runtimes may differ by rounding."""
        return self.runtime is Runtime.NUMPY

    def __call__(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate at the primals: the output and its pullback. What either changes in the process is put back.

        Raises:
            InvalidInput: by the pullback, if it returns no dict, or the cotangent of something that is no primal.
        """
        y, pullback = call_foreign(self.evaluate, **primals)
        return y, partial(_pull, pullback, primals, self.name)


def _pull(pullback: Pullback, primals: Primals, label: str, delta: Delta) -> Cotangents:
    """Call a pullback, and require a cotangent for primals alone; Python's numbers become arrays of one number."""
    cotangents = call_foreign(pullback, delta)
    if not isinstance(cotangents, Mapping):
        raise InvalidInput(
            f"{label}: the pullback must return {{name: cotangent}}, got {describe(cotangents)}.\n{_fix_of(primals)}"
        )
    require_primals(cotangents, primals, label)
    return {n: _as_array(g, primals[n]) for n, g in cotangents.items()}


def _as_array(cotangent: Cotangent, primal: Array) -> Cotangent:
    """Return a number of Python's as an array in the dtype of its primal, if that is one number; else the cotangent."""
    is_number = type(cotangent) in (float, int) and np.shape(primal) == () and is_differentiable(primal)
    return np.asarray(cotangent, np.asarray(primal).dtype) if is_number else cotangent


def require_primals(cotangents: Mapping[str, Cotangent], primals: Primals, label: str) -> None:
    """Require that every cotangent belongs to a primal.

    Raises:
        InvalidInput: if one does not; states what to return.
    """
    unknown = [n for n in cotangents if n not in primals]
    if unknown:
        hint = did_you_mean(str(unknown[0]), [n for n in primals if n not in cotangents])
        raise InvalidInput(
            f"{label}: backward: expected cotangents of the primals {list(primals)}, "
            f"got one of {unknown}{hint}\n{_fix_of(primals)}"
        )


def _fix_of(primals: Primals) -> str:
    floating = [n for n, a in primals.items() if is_differentiable(a)]
    return f"Fix:    return {{{', '.join(f'{n!r}: d{n}' for n in floating)}}}"


def as_tuple(y: Any) -> tuple[Any, ...]:
    """Return an output, or a cotangent of one, as a tuple: one array becomes a tuple of one."""
    return tuple(y) if isinstance(y, tuple | list) else (y,)


def one_or_tuple(parts: Sequence[Any]) -> Any:
    """Return several outputs, or their cotangents, as a tuple, and one alone: the inverse of `as_tuple`."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def map_delta(function: Callable[[Array], Array], delta: Delta) -> Delta:
    """Apply a function to a cotangent of an output, or to each of a tuple of them."""
    return tuple(function(np.asarray(d)) for d in delta) if isinstance(delta, tuple) else function(np.asarray(delta))


# Floating dtypes that NumPy itself does not know, from ml_dtypes.
EXTENSION_FLOATS = frozenset(("bfloat16", "float8_e4m3fn", "float8_e5m2"))


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is a real floating one."""
    return dtype.kind == "f" or dtype.name in EXTENSION_FLOATS


def is_discrete(array: object) -> bool:
    """Return whether an array holds integers or booleans; an array of objects holds numbers, such as balls."""
    return np.asarray(array).dtype.kind in "iub"


def is_differentiable(array: object) -> bool:
    """Return whether an array has a cotangent: floating arrays do, integers and booleans do not."""
    return is_floating(array.dtype if isinstance(array, np.ndarray) else np.asarray(array).dtype)


def is_real(value: object) -> bool:
    """Return whether a value holds real numbers, of ml_dtypes too; not complex ones, objects, texts or times."""
    dtype = value.dtype if isinstance(value, np.ndarray) else np.asarray(value).dtype
    return dtype.kind in "fiub" or (dtype.kind == "V" and dtype.type is not np.void)


def with_dtype(tree: Any, dtype: npt.DTypeLike) -> Any:
    """Cast every floating array of a mapping, a tuple or a single array to ``dtype``; leave integers as they are."""
    if isinstance(tree, Mapping):
        return {name: with_dtype(array, dtype) for name, array in tree.items()}
    if isinstance(tree, tuple):
        return tuple(with_dtype(array, dtype) for array in tree)
    return np.asarray(tree, dtype) if is_differentiable(tree) else tree


def describe(value: object) -> str:
    """Describe a value for an error message."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, dtype {value.dtype}"
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    if value is None:
        return "nothing (None)"
    if hasattr(value, "requires_grad"):
        tensor: Any = value
        with_grad = ", requires grad" if tensor.requires_grad else ""
        return f"a torch tensor of shape {tuple(tensor.shape)} ({str(tensor.dtype).removeprefix('torch.')}{with_grad})"
    return f"{value!r:.60} ({type(value).__name__})"
