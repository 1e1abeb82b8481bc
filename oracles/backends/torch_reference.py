"""PyTorch as an oracle: torch.autograd differentiates a reference that states the primal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from oracles.backends.arrays import array_of, autograd_enabled, of_memory, with_autograd
from oracles.backends.devices import there
from oracles.lazy_modules import Tensor, torch
from oracles.outputs import AUXILIARY, DETACHED, Outputs, like, taken_apart
from oracles.perturbation.torch_operations import perturbed_operands, replay
from oracles.perturbation.torch_recording import Recordings
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Derived,
    Function,
    InvalidInput,
    NotPerturbable,
    Output,
    Perturbation,
    Primals,
    Pullback,
    ReferenceFailed,
    Rule,
    Runtime,
    Structured,
    as_tuple,
    is_differentiable,
)
from oracles.signatures import call_by_name
from oracles.structure import Trees, auxiliary
from oracles.user_code import Raised, attempt

Context: TypeAlias = Any  # what a torch function keeps for its backward


def torch_autograd(f: Function, *, name: str = "torch", has_aux: bool = False) -> Rule:
    """Return the Rule of a torch function, differentiated by ``torch.autograd.grad``.

    The Rule takes and returns NumPy arrays and computes in the dtype of the primals. A primal that a
    differentiable output does not depend on has a zero cotangent; integer and boolean primals have none. Of several
    outputs, one that does not require grad is compared as a value.

    Args:
        f: ``f(**tensors)`` returns a tensor, or a tuple, list, dict or namedtuple of tensors, written in torch's own
            idiom. Where a primal is float64, torch's default dtype is, too, so that ``torch.zeros(3)`` is float64.
        name: what reports call it.
        has_aux: whether ``f`` returns ``(y, aux)``, of which aux carries no gradient and is compared as values.

    Returns:
        The Rule, which can be perturbed.

    Raises:
        InvalidInput: when evaluated, if ``f`` does not return tensors.
        ReferenceFailed: when pulled back, if an output does not require grad, so that torch has no derivative of it.
    """
    return _torch_rule(auxiliary(f, name) if has_aux else f, name, Trees())


def _torch_rule(f: Function, name: str, trees: Trees) -> Rule:
    """Make the Rule of `torch_autograd`, over the leaves of trees."""
    primal = trees.calling(f) if trees.roots else f
    oracle = _TorchOracle(primal, name)
    evaluate = with_autograd(oracle.evaluate)
    structured = Structured(evaluate, partial(_torch_rule, f, name))
    derived = Derived(evaluate, oracle.second, oracle.tangent)
    return Rule(
        evaluate, name, oracle.evaluate_perturbed, primal, Runtime.TORCH, structured=structured, derived=derived
    )


def torch_family(f: Function) -> Callable[[Mapping[str, object]], Rule]:
    """Return the function of options that makes the Rule of ``f(**tensors, **options)``."""
    return lambda options: torch_autograd(partial(f, **options) if options else f)


@dataclass(frozen=True)
class _TorchOracle:
    """A torch function that is differentiated by autograd."""

    f: Function
    name: str
    recordings: Recordings = field(default_factory=Recordings, compare=False)

    def evaluate(self, **primals: Array) -> tuple[Output, Pullback]:
        tensors = self._tensors(primals)
        y = self._forward(tensors)

        def pullback(delta: Delta) -> Cotangents:
            _require_gradients(tensors, as_tuple(y), self.name)
            gradients = _gradients(tensors, y, list(map(_tensor, as_tuple(delta))), retain=True)
            return {n: _array(g) for n, g in gradients.items()}

        arrays = like(y, [_array(part) for part in as_tuple(y)])
        return with_detached(arrays, y, tensors), pullback

    def evaluate_perturbed(
        self, primals: Primals, delta: Delta, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        seed = int(perturbation.rng.integers(2**62))
        with autograd_enabled():
            y, gradients = self._perturbed(primals, delta, perturbation, seed, careful=False)
            if any(bool(np.isnan(a).any()) for a in (*y, *gradients.values())):
                # Some perturbed operand has left the domain of its operation, unless the reference is NaN there.
                y, gradients = self._perturbed(primals, delta, perturbation, seed, careful=True)
        return y, gradients

    def _perturbed(
        self, primals: Primals, delta: Delta, perturbation: Perturbation, seed: int, *, careful: bool
    ) -> tuple[tuple[Array, ...], Cotangents]:
        seeded = partial(_seeded, perturbation, seed)
        tensors, seeds = self._tensors(primals), list(map(_tensor, as_tuple(delta)))
        given, kind = [*tensors.values(), *seeds], (perturbation.forward, careful)
        self.recordings.move_to(primals, [(s.dtype, s.shape) for s in seeds])
        known = self.recordings.find(kind)
        if known:
            replayed = attempt(lambda: replay(known, seeded(), given, careful=careful))
            if not isinstance(replayed, Raised):
                return self._named(tensors, replayed)
            # Operations that ran on other numbers raise on these; the code may do something else then.
            self.recordings.forget(kind)
        recording = self.recordings.start(kind)

        def evaluate() -> list[Tensor]:
            with perturbed_operands(seeded(), given, careful=careful, recording=recording) as operations:
                operations.active = perturbation.forward
                y = self._forward(tensors)
                operations.active = True
                values = [*as_tuple(y), *_gradients(tensors, y, seeds, retain=False).values()]
            if recording:
                recording.finish(values)
                self.recordings.add(recording, kind)
            return values

        # Operations may raise anything on perturbed numbers: there is no Cholesky factor, say.
        result = attempt(evaluate, reraise=(InvalidInput, ReferenceFailed))
        if isinstance(result, Raised):
            raise NotPerturbable(f"{self.name} raises on perturbed numbers: {result.error}") from result.error
        return self._named(tensors, result)

    def _named(
        self, tensors: Mapping[str, Tensor], values: Sequence[Tensor]
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """Return outputs, and gradients by name, of what one evaluation gave."""
        arrays, names = list(map(_array, values)), [n for n, t in tensors.items() if t.requires_grad]
        outputs = len(arrays) - len(names)
        return tuple(arrays[:outputs]), dict(zip(names, arrays[outputs:], strict=True))

    def second(self, wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
        """Return the Rule of the pullback, differentiated by autograd once more, see `Derived`."""
        return torch_autograd(partial(self._pulled_back, wrt, deltas), name=self.name)

    def tangent(self, tangents: Mapping[str, str]) -> Rule:
        """Return the Rule of the directional derivative, see `Derived`."""
        return torch_autograd(partial(self._pushed_forward, tangents), name=self.name)

    def _pulled_back(self, wrt: tuple[str, ...], deltas: tuple[str, ...], /, **tensors: Tensor) -> tuple[Tensor, ...]:
        seeds = [tensors[n] for n in deltas]
        leaves = {n: tensors[n] for n in wrt}
        y = self._forward_twice_differentiable({n: t for n, t in tensors.items() if n not in deltas})
        gradients = _gradients(leaves, y, seeds, retain=True, create=True)
        # A gradient that depends on nothing is differentiable nevertheless: its derivative is zero.
        return tuple(g if g.requires_grad else g + 0 * seeds[0].sum() for g in gradients.values())

    def _forward_twice_differentiable(self, tensors: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Evaluate the reference with attention in single operations: torch has no second derivative of its kernels."""
        attention = import_module("torch.nn.attention")
        with attention.sdpa_kernel(attention.SDPBackend.MATH):
            return self._forward(tensors)

    def _pushed_forward(self, tangents: Mapping[str, str], /, **tensors: Tensor) -> tuple[Tensor, ...]:
        """Return y and J v; the latter as the derivative of u ↦ Jᵀ u, which is linear, along v.

        Autograd's forward mode knows fewer operations. The primals are leaves of their own, so that what is
        differentiated again is linear in v alone.
        """
        names = {*tangents.values()}
        own = {n: t.detach().requires_grad_(t.requires_grad) for n, t in tensors.items() if n not in names}
        outputs = as_tuple(self._forward_twice_differentiable(own))
        y = [part for part in outputs if part.is_floating_point() or part.is_complex()]
        seeds = [torch.ones_like(part).requires_grad_(part.requires_grad) for part in y]
        gradients = _gradients({n: own[n] for n in tangents}, tuple(y), seeds, retain=True, create=True)
        pairs = [(g, tensors[tangents[n]]) for n, g in gradients.items() if g.requires_grad]
        moving = [seed for seed in seeds if seed.requires_grad]
        pushed = iter(_along(pairs, moving))
        # What does not depend on the primals has a tangent of zero, which is differentiable nevertheless.
        still = 0 * sum(tensors[n].sum() for n in names)
        return (*y, *(next(pushed) if seed.requires_grad else torch.zeros_like(seed) + still for seed in seeds))

    def _tensors(self, primals: Primals) -> dict[str, Tensor]:
        return {n: _tensor(a).requires_grad_(is_differentiable(a)) for n, a in primals.items()}

    def _forward(self, tensors: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, ...]:
        with _default_dtype_for(tensors):
            y = taken_apart(call_by_name(self.f, tensors))
        parts = list(as_tuple(y))
        if isinstance(y, Outputs):  # numbers in a structure: a count, a rate
            parts = [torch.as_tensor(p) if isinstance(p, float | np.ndarray) else p for p in parts]
        for part in parts:
            if not isinstance(part, torch.Tensor):
                raise InvalidInput(
                    f"{self.name}: the reference must return a torch tensor (or a tuple of them), "
                    f"got {type(part).__name__}"
                )
        if isinstance(y, Outputs):
            return y.like([p.detach() if y.without.get(i) == AUXILIARY else p for i, p in enumerate(parts)])
        result: Tensor | tuple[Tensor, ...] = y
        return result


@contextmanager
def _default_dtype_for(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Let torch's default dtype be float64 where a primal is float64 or complex128, as JAX's is.

    Otherwise ``torch.zeros(3)``, ``torch.tensor(0.1)`` and an integer primal plus 1.0 are float32 in a reference that
    is evaluated in float64: 0.1 is off by 1e-9 then, and a product of matrices of two dtypes raises.
    """
    before = torch.get_default_dtype()
    if any(t.dtype in (torch.float64, torch.complex128) for t in tensors.values()):
        torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _seeded(perturbation: Perturbation, seed: int) -> Perturbation:
    return perturbation._replace(rng=np.random.default_rng(seed))


def _gradients(
    tensors: Mapping[str, Tensor],
    y: Tensor | tuple[Tensor, ...],
    seeds: Sequence[Tensor],
    *,
    retain: bool,
    create: bool = False,
) -> dict[str, Tensor]:
    leaves = {n: t for n, t in tensors.items() if t.requires_grad}
    # torch.autograd.grad refuses outputs that depend on no leaf.
    pairs = [(part, seed) for part, seed in zip(as_tuple(y), seeds, strict=True) if part.requires_grad]
    if not pairs:
        return {n: torch.zeros_like(t) for n, t in leaves.items()}
    outputs, seeds = [part for part, _ in pairs], [seed for _, seed in pairs]
    for output, seed in pairs:
        if output.shape != seed.shape:
            shapes = f"{tuple(output.shape)}, and its cotangent {tuple(seed.shape)}"
            raise ReferenceFailed(f"an output of the reference has the shape {shapes}")
    root = _root_function().apply(seeds, *outputs)
    gradients = torch.autograd.grad(
        root, list(leaves.values()), retain_graph=retain, create_graph=create, allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, gradients, strict=True))


def _along(pairs: Sequence[tuple[Tensor, Tensor]], seeds: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the derivatives by the seeds of the sum of ⟨gradient, direction⟩, which is linear in both."""
    if not pairs:
        return [torch.zeros_like(seed) for seed in seeds]
    gradients, directions = zip(*pairs, strict=True)
    pushed: Sequence[Tensor] = torch.autograd.grad(
        gradients, seeds, directions, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return pushed


@lru_cache(maxsize=1)
def _root_function() -> Tensor:
    """Return the torch function of outputs that is a number, and whose gradients are given ones.

    ``torch.autograd.grad`` compares the shapes of outputs and of given gradients with SymPy, which takes longer to
    import than a small check takes. A number needs no given gradient.
    """

    def forward(context: Context, seeds: Sequence[Tensor], *outputs: Tensor) -> Tensor:
        context.seeds = seeds
        # Real, since torch asks for the gradient of a complex number.
        return torch.zeros((), dtype=torch.float64, device=outputs[0].device)

    def backward(context: Context, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *context.seeds

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type("Root", (torch.autograd.Function,), methods)


def _require_gradients(tensors: Mapping[str, Tensor], y: Sequence[Tensor], name: str) -> None:
    """Refuse outputs without a graph: torch has no derivative of some functions, and says so nowhere.

    Of several outputs, one without a graph is taken as detached: it carries no gradient.

    Raises:
        ReferenceFailed: if no floating output requires grad, and a primal does.
    """
    leaves = [n for n, t in tensors.items() if t.requires_grad]
    if any(part.requires_grad for part in y):
        return
    for i, part in enumerate(y):
        if leaves and not part.requires_grad and (part.is_floating_point() or part.is_complex()):
            output = "the output" if len(y) == 1 else f"output[{i}]"
            raise ReferenceFailed(
                f"{name}: {output} of the reference does not require grad, so torch has no derivative of it with "
                f"respect to {', '.join(leaves)}. It is a function that torch cannot differentiate "
                "(torch.special.bessel_j0 is one), or computed under torch.no_grad, or detached.\n"
                f"Fix: write it in differentiable operations; or, where a gradient of zero is meant,\n"
                f"    return y + 0 * {leaves[0]}.sum()\n"
                "or, where the gradient passes through it as through the identity,\n"
                '    oracles.declared(subject, gradient="straight_through")'
            )


def with_detached(arrays: Output, y: Tensor, tensors: Mapping[str, Tensor], reason: str = DETACHED) -> Output:
    """Return the outputs as arrays, with the floating ones that require no grad, unless none of several does.

    Args:
        arrays: the outputs as arrays.
        y: the outputs as tensors.
        tensors: the primals.
        reason: why they carry no gradient.
    """
    parts = as_tuple(y)
    requiring = [isinstance(p, torch.Tensor) and p.requires_grad for p in parts]
    if len(parts) == 1 or not any(requiring) or not any(t.requires_grad for t in tensors.values()):
        return arrays
    floats = {i for i, p in enumerate(parts) if isinstance(p, torch.Tensor) and p.is_floating_point()}
    without = {i: reason for i in floats if not requiring[i]}
    if not without:
        return arrays
    return arrays.but_without(without) if isinstance(arrays, Outputs) else Outputs(as_tuple(arrays), (), without)


def _tensor(array: Array) -> Tensor:
    """Copy an array of any layout into a tensor: torch accepts neither negative strides nor read-only memory."""
    return there(of_memory(np.array(array, order="C", copy=True)))


def _array(tensor: Tensor) -> Array:
    return np.asarray(array_of(tensor))
