"""Adapter of functions that torch itself differentiates: torch's own derivative is the subject.

For those who audit a framework: is what autograd derives for ``f`` right, in each dtype?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from oracles.adapters.torch_code import engine, floating, leaves, second_of, tangent_of
from oracles.backends.arrays import Backend, backend_for, with_autograd
from oracles.backends.devices import Device, on_device
from oracles.backends.torch_reference import with_detached
from oracles.lazy_modules import Tensor, torch
from oracles.outputs import taken_apart
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Derived,
    Evaluate,
    Function,
    InvalidInput,
    Output,
    Pullback,
    Rule,
    Runtime,
    Structured,
    as_tuple,
)
from oracles.structure import NO_TREES, Trees, auxiliary, call_with_trees


def torch_differentiated(
    f: Function,
    *,
    options: Mapping[str, object] | None = None,
    has_aux: bool = False,
    device: Device = None,
    dtypes: Sequence[str] | None = None,
    name: str | None = None,
) -> Rule:
    """Make a Rule whose pullback is what torch derives: ``pullback(delta) = Jᵀ delta`` by `torch.autograd.grad`.

    It is a subject: torch's derivative is judged, in the dtype of the primals, against other references.
    `oracles.torch_autograd` makes the reference. A call pattern checks each gradient requested alone. A floating
    primal that no output depends on has a gradient of zeros, as torch says where it is asked for one.

    Args:
        f: ``f(**tensors, **options)`` returns a tensor, or a tree of tensors: ``torch.cumprod``, a function of yours.
        options: its other arguments by name.
        has_aux: whether it returns ``(y, aux)``, of which aux carries no gradient and is compared as values.
        device: where the tensors lie, "cuda" or "cuda:1" for example. By default where `check` says, else on the CPU.
        dtypes: the only floating dtypes that it accepts; by default all, float32, bfloat16 and float16 too.
        name: what reports call the rule.

    Returns:
        The Rule.

    Raises:
        InvalidInput: if ``f`` cannot be called.

    Example:
        >>> primals = {"z": np.array([2.0, 0.0, 3.0])}
        >>> subject = oracles.torch_differentiated(lambda z: torch.cumprod(z, 0))
        >>> oracles.check(subject, primals, [oracles.jax_vjp(jnp.cumprod)]).verdict
        <Verdict.AGREES: 'agrees'>
    """
    if not callable(f):
        raise InvalidInput(f"torch_differentiated: expected a function of torch tensors, got {f!r:.60}")
    label = name or str(getattr(f, "__name__", type(f).__name__))
    bound = partial(f, **options) if options else f
    subject = _Differentiated(
        auxiliary(bound, label) if has_aux else bound, f, backend_for("torch", dtypes=dtypes), label
    )
    return on_device(_rule(subject, NO_TREES), device)


def _rule(subject: _Differentiated, trees: Trees) -> Rule:
    """Make the Rule of `torch_differentiated`, over the leaves of trees."""
    subject = replace(subject, trees=trees)
    evaluate = with_autograd(subject.by_the_engine)
    patterns: dict[str, Evaluate] = {
        "one gradient requested alone": with_autograd(subject.one_gradient_alone),
    }
    return Rule(
        evaluate,
        subject.label,
        runtime=Runtime.TORCH,
        implementation=subject.implementation,
        call_patterns=patterns,
        structured=Structured(evaluate, partial(_rule, subject)),
        derived=Derived(
            evaluate, partial(second_of, subject, with_autograd), partial(tangent_of, subject, with_autograd)
        ),
    )


@dataclass(frozen=True)
class _Differentiated:
    """The arguments of `torch_differentiated`, and the ways to evaluate it."""

    f: Function
    implementation: Function
    backend: Backend
    label: str
    trees: Trees = NO_TREES

    def by_the_engine(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate f, and its gradients by autograd's engine."""
        tensors = leaves(primals, floating(primals), self.backend)
        y = self.call(tensors)
        return self._outputs(y, tensors), lambda delta: self._gradients(tensors, as_tuple(y), self._seeds(delta))

    def one_gradient_alone(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate once for each floating primal, which alone requires grad: another backward may run."""
        runs = []
        for n in floating(primals):
            tensors = leaves(primals, [n], self.backend)
            runs.append((tensors, self.call(tensors)))
        if len(runs) < 2:
            return self.by_the_engine(**primals)
        everywhere = leaves(primals, floating(primals), self.backend)
        y = self.call(everywhere)

        def pullback(delta: Delta) -> Cotangents:
            # Where no output depends on the one primal, torch records nothing, and the gradient is zero.
            cotangents = self._zeros(everywhere, as_tuple(y))
            for tensors, own_y in runs:
                cotangents |= engine(tensors, as_tuple(own_y), self._seeds(delta), self.backend)
            return cotangents

        return self._outputs(y, everywhere), pullback

    def call(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the output of f, of tensors."""
        return taken_apart(call_with_trees(self.f, self.trees.rebuilt(tensors)))

    def _outputs(self, y: Tensor, tensors: Mapping[str, Tensor]) -> Output:
        return with_detached(self.backend.tree_to_numpy(y), y, tensors)

    def _seeds(self, delta: Delta) -> list[Tensor]:
        return [self.backend.from_numpy(d) for d in as_tuple(delta)]

    def _gradients(self, tensors: Mapping[str, Tensor], y: Sequence[Tensor], seeds: Sequence[Tensor]) -> Cotangents:
        """Return the gradients by the engine; zeros where no output depends on a primal."""
        return self._zeros(tensors, y) | engine(tensors, tuple(y), seeds, self.backend)

    def _zeros(self, tensors: Mapping[str, Tensor], y: Sequence[Tensor]) -> Cotangents:
        """Return zeros for every primal that requires grad; none where no output does."""
        if not any(map(_carries, y)):
            return {}
        return {n: self.backend.to_numpy(torch.zeros_like(t)) for n, t in tensors.items() if t.requires_grad}


def _carries(part: Tensor) -> bool:
    return bool(getattr(part, "requires_grad", False))
