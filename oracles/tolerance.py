"""Tolerances: how far rounding alone can move each entry of an output or a cotangent, at one point.

The reference is evaluated again with every operand of every rounding operation, forward and backward, multiplied by
``1 ± c√n·u`` with random signs, where u is the unit roundoff of the subject's precision and n the number of terms that
this operation sums: 1 where it sums nothing. The tolerance of an entry is the largest deviation over the samples, so it
includes conditioning and cancellation at this very input.

√n·u is the probabilistic growth of rounding errors in a reduction of length n (Higham & Mary 2019, Ipsen & Zhou 2020).
c and the numbers of samples are chosen: see `oracles.constants`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from oracles.constants import (
    BACKWARD_SAMPLES,
    FIRST_SAMPLES,
    JUMP_SAMPLES,
    JUMP_SHARE,
    JUMP_SHRINKAGE,
    MORE_SAMPLES,
    NOISE_SHARE,
    ROUNDING_INSIDE,
    SMALLER_SHARES,
)
from oracles.notes import note
from oracles.numerics import Numerics, precision_name, stored, stores_of, unit_roundoff
from oracles.perturbation.numpy_arrays import perturb_own_code
from oracles.perturbation.sign_pool import drawn_signs
from oracles.process_state import call_foreign, steers_a_run
from oracles.rule import (
    Array,
    Convention,
    Cotangents,
    Evaluate,
    NotPerturbable,
    Output,
    Perturbation,
    Primals,
    ReferenceFailed,
    Rule,
    as_tuple,
    is_differentiable,
    with_dtype,
)
from oracles.time_budget import require_time
from oracles.user_code import Raised, attempt, describe_fault


def longest_reduction(primals: Primals, delta: Output) -> int:
    """Return the length of the longest axis: no reduction over one axis is longer."""
    return max((extent for a in (*primals.values(), *as_tuple(delta)) for extent in np.shape(a)), default=1)


@dataclass
class ToleranceEstimator:
    """Estimates the tolerance at one point: a few samples accept most inputs, more are drawn before a refusal.

    Attributes:
        sources: Rules with `Rule.evaluate_perturbed`; the first that can be perturbed at this point is used.
        primals, delta: the point, in float64.
        numerics: what the subject stores, accumulates and multiplies in.
        known: results of oracles at the point, by the oracle's name, so that they need not be evaluated again.
        read_error: a bound on the error made in reading the subject's cotangents.
        native: the point in the subject's dtypes, where these may differ; see `finer`.
        convention: changes the tolerances, as the subject declares.
    """

    sources: Sequence[Rule]
    primals: Primals
    delta: Output
    numerics: Numerics
    known: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    read_error: Mapping[str, Array] = field(default_factory=dict)
    native: tuple[Primals, Output] | None = None
    convention: Convention = field(default_factory=Convention)
    _unperturbed: Array | None = None
    _largest: Array | None = None
    _slices: dict[str, tuple[slice, tuple[int, ...]]] = field(default_factory=dict)
    _samples: int = 0
    _in_precision: dict[str, ToleranceEstimator] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """The precision in which the subject stores."""
        return self.numerics.store

    @cached_property
    def sharpest(self) -> ToleranceEstimator | None:
        """The estimator where each result is rounded once; ``None`` where nothing finer than that can be asked for.

        What is stored in float64 next to narrow numbers has a tolerance of its own, see `finer`.
        """
        dtypes = [a.dtype for a in self.native[0].values() if is_differentiable(a)] if self.native else []
        if self.numerics.round != "any" or any(unit_roundoff(d) < unit_roundoff("float32") for d in dtypes):
            return None
        return self.under(self.numerics.sharpest)

    def under(self, numerics: Numerics) -> ToleranceEstimator:
        """Return the estimator of a subject with other numerics at the same point, without samples yet."""
        return replace(self, numerics=numerics, **_no_samples())

    def estimate(self, samples: int = FIRST_SAMPLES) -> dict[str, Array]:
        """Return how far rounding may move each entry of the outputs ("output", or "output[0]" …) and cotangents.

        The perturbations are seeded, so that a tolerance is a function of the input. Beyond the first samples
        underflow is simulated too; the last `BACKWARD_SAMPLES` perturb the backward alone.
        """
        tolerances = self._with_stores(self._uniform(samples))
        for n, precision in self.finer.items():
            tolerances[n] = self.in_precision(precision)._uniform(samples)[n]
        for n in self.read_error.keys() & tolerances.keys():
            scale = unit_roundoff(self.finer[n]) / unit_roundoff(self.precision) if n in self.finer else 1.0
            tolerances[n] = tolerances[n] + scale * self.read_error[n]
        return dict(self.convention.tolerances(tolerances, self._named(self._unperturbed)))

    def in_precision(self, precision: str) -> ToleranceEstimator:
        """Return the estimator of a subject that computes everything in another precision; its samples are kept.

        An error made in reading the subject's cotangents is not part of it.
        """
        if precision == self.precision and self.native is None and not self.read_error:
            return self
        if precision not in self._in_precision:
            self._in_precision[precision] = ToleranceEstimator(
                self.sources, self.primals, self.delta, Numerics.of(precision), self.known, convention=self.convention
            )
        return self._in_precision[precision]

    def of_array(self, name: str) -> ToleranceEstimator:
        """Return the estimator in the precision of one output or cotangent; ``estimate`` gives the same for it."""
        if name not in self.finer:
            return self
        scale = unit_roundoff(self.finer[name]) / unit_roundoff(self.precision)
        read_error = {n: scale * error for n, error in self.read_error.items()}
        alone = self.in_precision(self.finer[name])
        return replace(alone, read_error=read_error) if read_error else alone

    @cached_property
    def finer(self) -> dict[str, str]:
        """The precision of each output and cotangent that nothing of the coarsest precision reaches, by name.

        Where primals differ in dtype, an operation computes in that of its finest operand. So a reference that is
        evaluated in those dtypes shows which precision reaches an array: the finest one whose tolerance explains how
        far the array then is from its value in float64. An array is no finer than its own dtype, and as fine as that
        where the reference does not run in those dtypes.
        """
        if self.native is None or self.numerics.rounds_results:
            return {}
        dtypes = {n: precision_name(a.dtype) for n, a in self.native[0].items() if is_differentiable(a)}
        precisions = sorted({*dtypes.values()} - {self.precision}, key=unit_roundoff)
        precisions = [p for p in precisions if unit_roundoff(p) < unit_roundoff(self.precision)]
        if not precisions:
            return {}
        wide = self._uniform(FIRST_SAMPLES)  # which also chooses the source
        plain = self._named(self._unperturbed)
        native = self._native()
        return {
            n: fine
            for n in wide
            for fine in precisions
            if unit_roundoff(fine) >= unit_roundoff(dtypes.get(n, precisions[0]))
            and (native is None or self._explains(fine, n, np.abs(native[n] - plain[n])))
        }

    def _native(self) -> dict[str, Array] | None:
        """Return what the source computes in the dtypes of the point; ``None`` if it does not run in them."""
        assert self.native is not None
        primals, delta = self.native

        def evaluate() -> dict[str, Array]:
            with np.errstate(all="ignore"):
                values = values_of(self.sources[0], primals, delta)
            return {n: np.asarray(a, np.float64) for n, a in values.items()}

        values = attempt(evaluate)
        return None if isinstance(values, Raised) else values

    def _explains(self, precision: str, name: str, error: Array) -> bool:
        estimator = self.in_precision(precision)
        return any(bool(np.all(error <= estimator.estimate(k)[name])) for k in (FIRST_SAMPLES, MORE_SAMPLES))

    def jumps(self, name: str) -> bool:
        """Return whether some deviation does not shrink with the perturbation: a kink is within its reach."""
        return bool(np.any(self.jumping(name)))

    def jumping(self, name: str) -> Array:
        """Return the entries whose deviation does not shrink and grow with the perturbation, as booleans.

        Far smaller rounding errors move no number of float64, as they are smaller than the last place. So 0.3 − 0.3 is
        seen to be a tie by somewhat smaller and by far larger ones: what is ill conditioned grows, up to its own size.
        """
        if name in self.finer:
            return self.in_precision(self.finer[name]).jumping(name)
        large = self.estimate()[name]
        if name in self.read_error and np.all(self._uniform(FIRST_SAMPLES)[name] <= large * JUMP_SHARE):
            return np.zeros(np.shape(large), bool)  # the tolerance is that of reading the values, and not of rounding
        stays = self._named(self._smaller)[name] > large * JUMP_SHARE
        if self.precision == "float64":
            # What is as small as rounding stays so whatever the inputs are, and jumps over nothing.
            a_little, far = (self._named(d)[name] for d in (self._a_little_smaller, self._larger))
            stays |= (a_little > large / 2) & (far < large / JUMP_SHARE) & (large > self._noise)
        return np.asarray(stays & (large > 0))

    @cached_property
    def _smaller(self) -> Array:
        """The largest deviation under far smaller rounding errors."""
        return self._deviation_times(JUMP_SHRINKAGE)

    @cached_property
    def _a_little_smaller(self) -> Array:
        """The largest deviation under rounding errors that still move the last place of float64."""
        return self._deviation_times(JUMP_SHARE)

    @cached_property
    def _larger(self) -> Array:
        """The largest deviation under far larger rounding errors."""
        return self._deviation_times(1 / JUMP_SHRINKAGE)

    def _deviation_times(self, scale: float) -> Array:
        rngs = [np.random.default_rng(k) for k in range(JUMP_SAMPLES)]
        return np.asarray(np.maximum.reduce([self._deviation(self._perturbation(rng, scale)) for rng in rngs]))

    def backward_tolerance(self, name: str) -> Array:
        """Return how far rounding in the backward alone moves each entry: the forward keeps its side of every kink."""
        if name in self.finer:
            return self.in_precision(self.finer[name]).backward_tolerance(name)
        return self._with_stores(self._named(self._backward))[name]

    @cached_property
    def _backward(self) -> Array:
        """The largest deviation under rounding errors in the backward alone."""
        rngs = [np.random.default_rng(k) for k in range(BACKWARD_SAMPLES)]
        deviations = [self._deviation(self._perturbation(rng, forward=False)) for rng in rngs]
        assert self._unperturbed is not None
        return np.asarray(np.maximum.reduce([self.numerics.relative * np.abs(self._unperturbed), *deviations]))

    def _with_stores(self, deviations: dict[str, Array]) -> dict[str, Array]:
        """Return the tolerances of results that are computed in a finer precision and stored once, else as they are."""
        if not self.numerics.rounds_results:
            return deviations
        values = self._named(self._unperturbed)
        return {
            n: stored(values[n], deviation, self.stores.get(n if n in self.primals else "", self.precision))
            for n, deviation in deviations.items()
        }

    @property
    def stores(self) -> Mapping[str, str]:
        """In which precision each cotangent, and "" the outputs, are stored; empty where it is as declared."""
        return stores_of(self.native[0]) if self.native else {}

    def _perturbation(self, rng: np.random.Generator, scale: float = 1.0, *, forward: bool = True) -> Perturbation:
        """Return simulated rounding of a size times ``scale``, with underflow."""
        return self.numerics.perturbation(rng, forward=forward)._replace(absolute=self.numerics.floor).times(scale)

    def _uniform(self, samples: int) -> dict[str, Array]:
        """Return the tolerances of a subject that computes everything in ``precision``."""
        # Samples are kept: a refusal needs many more than an agreement, and most points agree.
        if samples > self._samples:
            for k in range(self._samples, samples):
                if k >= FIRST_SAMPLES:
                    require_time()
                # The seed is the sample's number, so that more samples only add to fewer.
                absolute = 0.0 if k < FIRST_SAMPLES else self.numerics.floor
                forward = k < MORE_SAMPLES - BACKWARD_SAMPLES
                perturbation = self._perturbation(np.random.default_rng(k), forward=forward)
                deviation = self._deviation(perturbation._replace(absolute=absolute))
                assert self._unperturbed is not None
                # Operands are perturbed, so the last rounding of a result that no operation consumes is added here.
                last = self.numerics.relative * np.abs(self._unperturbed) if self._largest is None else self._largest
                # Into the deviation: the tolerance of fewer samples may still be in use.
                self._largest = np.maximum(np.maximum(last, absolute) if absolute else last, deviation, out=deviation)
            self._samples = samples
        tolerances = self._named(self._with_rounding_inside())
        plain_values = np.asarray(self._unperturbed)
        if np.isnan(plain_values).any() and len(self.sources) > 1:
            # The source has no value there, so that it tells nothing of rounding: the next one may.
            others = self._next.estimate(samples)
            named = self._named(plain_values)
            for n in named.keys() & others.keys():  # a source without a pullback has the outputs alone
                plain = named[n]
                tolerances[n] = np.where(np.isnan(plain), others[n], tolerances[n])
        return tolerances

    def _with_rounding_inside(self) -> Array:
        """Return the deviations, and where terms cancel to zero for every input, what rounding leaves of them.

        Perturbed inputs do not show it: the gradient of a bias before a batch norm is zero for each of them. In float64
        it is as far from zero as rounding moves it there, and in a coarser precision as many times farther as that is
        coarser.
        """
        assert self._largest is not None
        assert self._unperturbed is not None
        if len(self.sources) > 1:
            return self._largest
        is_noise = (self._largest <= self._noise) & (np.abs(self._unperturbed) <= self._noise)
        coarser = unit_roundoff(self.precision) / unit_roundoff("float64")
        return np.where(is_noise, ROUNDING_INSIDE * coarser * self._largest, self._largest)

    @cached_property
    def _noise(self) -> float:
        """A size far below that of the arrays, which rounding in float64 may have."""
        sizes = np.abs(np.asarray(self._unperturbed))
        return NOISE_SHARE * float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))

    @cached_property
    def _next(self) -> ToleranceEstimator:
        return ToleranceEstimator(self.sources[1:], self.primals, self.delta, self.numerics, self.known)

    def _deviation(self, perturbation: Perturbation) -> Array:
        """Return how far one perturbed evaluation lies from the plain one, all arrays in one flat vector."""
        perturbed, share = self._evaluate_perturbed(perturbation)
        if self._unperturbed is None:
            source = self.sources[0]
            # The judge has evaluated most oracles at this point already.
            plain = self.known.get(source.name) or self._plain(source, perturbed)
            # One flat vector for all arrays: a few operations on it cost less than some for each array.
            self._unperturbed = np.concatenate([np.ravel(plain[n]) for n in perturbed])
            stops = np.cumsum([np.size(a) for a in perturbed.values()]).tolist()
            self._slices = {
                n: (slice(stop - np.size(a), stop), np.shape(a))
                for (n, a), stop in zip(perturbed.items(), stops, strict=True)
            }
        # A source that takes the place of another one may lack a cotangent, as JAX has none of an optimizer's step.
        unknown = {n: np.full(shape, np.nan) for n, (_, shape) in self._slices.items() if n not in perturbed}
        values = [np.ravel(unknown[n] if n in unknown else perturbed[n]) for n in self._slices]
        deviation = np.concatenate(values, dtype=np.float64)
        # In place: on large arrays fresh memory costs more than the arithmetic.
        with np.errstate(invalid="ignore"):  # ∞ − ∞: the deviation is unknown, so it is taken for infinite
            np.abs(np.subtract(deviation, self._unperturbed, out=deviation), out=deviation)
        no_number = np.isnan(deviation)
        if perturbation.absolute and self._largest is not None:
            # What underflows keeps its sign: a sum of squares may become 0, and no negative number under a root.
            deviation[no_number & np.isfinite(self._largest)] = 0.0
        deviation[np.isnan(deviation)] = np.inf
        return deviation if share == 1.0 else np.divide(deviation, share, out=deviation)

    def _plain(self, source: Rule, perturbed: Mapping[str, Array]) -> Mapping[str, Any]:
        """Return the unperturbed values, in the shapes of the perturbed ones."""
        try:
            return values_of(source, self.primals, self.delta)
        except ReferenceFailed:
            # It has no derivative, as the step of an optimizer has none: zero, where the judge has gone on.
            outputs = named_outputs(as_tuple(call_foreign(source, **self.primals)[0]), {})
            return {n: np.zeros(np.shape(a)) for n, a in perturbed.items()} | outputs

    def _named(self, flat: Array | None) -> dict[str, Array]:
        assert flat is not None
        return {n: flat[entries].reshape(shape) for n, (entries, shape) in self._slices.items()}

    def _evaluate_perturbed(self, perturbation: Perturbation) -> tuple[dict[str, Array], float]:
        """Return what the source gives under a perturbation, or under a part of it; and which share that is."""
        while True:
            try:
                return self._values(perturbation), 1.0
            except NotPerturbable:
                self.sources = self.sources[1:]  # the last source perturbs the inputs, which is always possible
            except Exception as error:  # a reference's domain may end within the perturbation, or our code may fail
                if steers_a_run(error):
                    raise
                if len(self.sources) == 1:
                    return self._nearer(perturbation, error)
                note(f"{self.sources[0].name} gives no tolerance: {describe_fault(error)}")
                self.sources = self.sources[1:]

    def _nearer(self, perturbation: Perturbation, error: Exception) -> tuple[dict[str, Array], float]:
        """Return the values under the largest share of a perturbation that the domain allows, and that share."""
        for share in SMALLER_SHARES:
            values = attempt(partial(self._values, perturbation.times(share)))
            if not isinstance(values, Raised):
                return values, share
        # A Cholesky factor of a matrix that rounding makes indefinite: it has no tolerance, so nothing is judged.
        note(f"rounding leaves the domain at this point, so no tolerance is known: {describe_fault(error)}")
        return {n: np.full(np.shape(a), np.nan) for n, a in self._plain(self.sources[0], {}).items()}, 1.0

    def _values(self, perturbation: Perturbation) -> dict[str, Array]:
        evaluate_perturbed = self.sources[0].evaluate_perturbed
        assert evaluate_perturbed is not None
        return named_outputs(*evaluate_perturbed(self.primals, self.delta, perturbation))


def named_outputs(y: tuple[Array, ...], cotangents: Cotangents) -> dict[str, Array]:
    """Return outputs and cotangents in one mapping; outputs are called "output", or "output[0]" and so on."""
    names = ["output"] if len(y) == 1 else [f"output[{i}]" for i in range(len(y))]
    return {**dict(zip(names, y, strict=True)), **cotangents}


def values_of(evaluate: Evaluate, primals: Primals, delta: Output) -> Cotangents:
    """Return the outputs and cotangents of one evaluation, by name."""
    y, pullback = call_foreign(evaluate, **primals)
    return named_outputs(as_tuple(y), dict(call_foreign(pullback, delta)))


def tolerance_at(
    oracles: Sequence[Rule],
    primals: Primals,
    delta: Output,
    numerics: Numerics | str,
    *,
    fallback: Rule,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    native: tuple[Primals, Output] | None = None,
) -> ToleranceEstimator:
    """Return the estimator of tolerances at a point, from the first oracle that can be perturbed there.

    If none can (finite differences, compiled kernels), the code of ``fallback`` is perturbed, if it is NumPy; else its
    primals and delta: that shows the conditioning of the problem, though not the rounding inside.

    Args:
        oracles: the oracles, in their order of preference.
        primals, delta: the point.
        numerics: what the subject stores, accumulates and multiplies in, or the precision alone, see `Numerics.of`.
        fallback: the subject.
        known: results of oracles at the point by their names, so that they are not evaluated again.
        native: the point in the subject's dtypes, if each array is to be judged in the precision that reaches it.
    """
    # The order is one of preference: a reference's rounding is independent of the subject's formulas.
    own = [perturb_own_code(fallback)] if fallback.runs_on_object_arrays else []
    sources = [*(rule for rule in oracles if rule.evaluate_perturbed is not None), *own, perturb_inputs(fallback)]
    wide, wide_delta = with_dtype(primals, np.float64), with_dtype(delta, np.float64)
    numerics = Numerics.of(numerics)
    read_error = fallback.convention.read_error(wide, wide_delta, unit_roundoff(numerics.store))
    return ToleranceEstimator(sources, wide, wide_delta, numerics, known or {}, read_error, native, fallback.convention)


def _no_samples() -> dict[str, Any]:
    """Return the fields of an estimator that has drawn no samples, for `dataclasses.replace`."""
    return {"_unperturbed": None, "_largest": None, "_slices": {}, "_samples": 0, "_in_precision": {}}


def perturb_inputs(rule: Rule) -> Rule:
    """Return a rule whose ``evaluate_perturbed`` perturbs primals and delta alone, as operands of a long sum."""

    def evaluate_perturbed(
        primals: Primals, delta: Output, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        # Nothing is known of what is inside, so it is taken for the longest reduction, in which every sum is rounded.
        relative = perturbation.relative * longest_reduction(primals, delta) ** 0.5

        def perturb(array: Array) -> Array:
            if not is_differentiable(array):
                return array
            signs = drawn_signs(perturbation.rng, (2, *array.shape))
            return np.asarray(array * (1 + relative * signs[0]) + perturbation.absolute * signs[1])

        y, pullback = rule(**({name: perturb(a) for name, a in primals.items()} if perturbation.forward else primals))
        cotangents = pullback(tuple(map(perturb, delta)) if isinstance(delta, tuple) else perturb(delta))
        return tuple(np.asarray(part, np.float64) for part in as_tuple(y)), cotangents

    return Rule(rule.evaluate, rule.name, evaluate_perturbed)
