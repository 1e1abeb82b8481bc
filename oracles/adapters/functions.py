"""Adapters of functions: a forward and its backward, and the layers and losses of `manual_bp`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from oracles.backends.arrays import ArrayKind, Backend, ForeignArray, backend_for
from oracles.backends.devices import Device, default_device, on_device
from oracles.notes import note
from oracles.outputs import Outputs, delta_in_structure, flat_delta, taken_apart
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Derived,
    Function,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    Structured,
    as_tuple,
    describe,
    is_discrete,
    one_or_tuple,
    require_primals,
)
from oracles.second_order import free_names
from oracles.signatures import call_by_name
from oracles.structure import NO_TREES, Trees, node_of, with_auxiliary_of

if TYPE_CHECKING:
    from manual_bp.protocol import Layer, Loss


def manual(
    forward: Callable[..., tuple[ForeignArray, object]],
    backward: Callable[[Any, Any], object] | None = None,
    *,
    arrays: ArrayKind = "numpy",
    device: Device = None,
    dtypes: Sequence[str] | None = None,
    has_aux: bool = False,
    second: Callable[[Any, Any, Any], object] | None = None,
    jvp: Callable[[Any, Any], object] | None = None,
    name: str | None = None,
) -> Rule:
    """Make a Rule of a hand-written forward and its backward.

    The functions may run anything inside: NumPy, a compiled function called through ctypes, a Triton kernel.

    Args:
        forward: ``forward(**primals) -> (y, cache)``.
        backward: ``backward(cache, delta)`` returns ``{name: cotangent}``, or a tuple in the order of the primals (an
            array if there is one primal). ``None``, or a missing name, claims no gradient for that primal. The
            cotangent of a primal that is a tree has its structure. ``delta`` has the structure of y, with zeros for
            outputs that carry no gradient, and ``None`` where y has ``None``. Without one, there is a ``jvp`` alone.
        arrays: the arrays that both take and return: "numpy", "torch" (tensors without grad), "jax" or "cupy".
        device: where the arrays of torch, JAX or CuPy lie, "cuda" or "cuda:1" for example. By default where `check`
            says; else torch's lie on the CPU, CuPy's on "cuda", and JAX's where JAX puts them. The references stay
            where `check` says.
        dtypes: the only floating dtypes that both accept, ``("float64",)`` for compiled code that takes a pointer. By
            default they accept all, and arrays of python-flint's balls too.
        has_aux: whether forward returns ``((y, aux), cache)``: aux is compared with that of the references, if they
            have one, and has no cotangent; ``delta`` is that of y.
        second: ``second(cache, delta, w)`` pulls back through ``backward``: of ⟨w, backward(cache, delta)⟩, with w by
            primal, it returns the derivatives ``{name: ∂/∂primal, "delta": ∂/∂delta}``, the latter in the structure of
            y, as ``delta`` is. `check` with ``order=2`` judges it; without it, finite differences of ``backward`` are
            the second derivative.
        jvp: ``jvp(primals, tangents) -> (y, tangent of y)``, both arguments by name. `check` with ``mode="jvp"`` or
            "both" judges it.
        name: what reports call the rule; the forward's name by default.

    Returns:
        The Rule.

    Raises:
        InvalidInput: when evaluated, if forward does not return a pair or its parameters are not the primals, or if
            backward returns a cotangent that belongs to no primal.
    """
    label = name or str(getattr(forward, "__qualname__", "manual"))
    subject = _Manual(forward, backward, second, jvp, backend_for(arrays, device, dtypes), has_aux, label)
    return on_device(_manual_rule(subject, NO_TREES), device or default_device(arrays))


def _manual_rule(subject: _Manual, trees: Trees) -> Rule:
    """Make the Rule of `manual`, over the leaves of trees."""
    subject = replace(subject, trees=trees)
    evaluate = subject.evaluate
    return Rule(
        evaluate,
        subject.label,
        runtime=subject.backend.runtime,
        implementation=(subject.call, subject.backward),
        structured=Structured(evaluate, partial(_manual_rule, subject)),
        derived=Derived(
            evaluate,
            None if subject.second is None else subject.second_rule,
            None if subject.jvp is None else subject.tangent_rule,
        ),
    )


@dataclass(frozen=True)
class _Manual:
    """The arguments of `manual`, and what is made of them."""

    forward: Function
    backward: Function | None
    second: Function | None
    jvp: Function | None
    backend: Backend
    has_aux: bool
    label: str
    trees: Trees = NO_TREES

    @property
    def call(self) -> Function:
        """The forward, as a function of the leaves of trees."""
        return self.trees.calling(self.forward) if self.trees.roots else self.forward

    def evaluate(self, **primals: Array) -> tuple[Output, Pullback]:
        """Run forward, and backward for each delta."""
        y, cache = self._forward(primals)

        def pullback(delta: Delta) -> Cotangents:
            return self._to_numpy(self._backward(cache, y, self.backend.delta_from_numpy(delta)), primals)

        return self.backend.tree_to_numpy(y), pullback

    def _forward(self, primals: Primals) -> tuple[ForeignArray, object]:
        # JAX needs its 64-bit mode; NumPy and torch need no context.
        with self.backend.context():
            result = call_by_name(self.call, self.backend.primals_from_numpy(primals))
        lines = "y = ...\n        return y, (z, W)      # whatever backward needs"
        returned, cache = _pair(result, f"{self.label}: forward", "(y, cache)", lines)
        return taken_apart(with_auxiliary_of(returned, self.label) if self.has_aux else returned), cache

    def _backward(self, cache: object, y: ForeignArray, delta: ForeignArray) -> object:
        if self.backward is None:
            return {}
        with self.backend.context():
            return self.backward(cache, delta_in_structure(y, delta))

    def _to_numpy(self, gradients: object, primals: Primals) -> Cotangents:
        named = named_cotangents(gradients, primals, self.label, self.trees)
        return {n: self.backend.to_numpy(g) for n, g in named.items()}

    def second_rule(self, wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
        """Return the Rule of backward, which the author's ``second`` pulls back."""
        return Rule(partial(self._differentiated_twice, wrt, deltas), self.label, runtime=self.backend.runtime)

    def _differentiated_twice(
        self, wrt: tuple[str, ...], deltas: tuple[str, ...], /, **arguments: Array
    ) -> tuple[Output, Pullback]:
        primals = {n: a for n, a in arguments.items() if n not in deltas}
        y, cache = self._forward(primals)
        parts = tuple(self.backend.from_numpy(arguments[n]) for n in deltas)
        delta = parts if isinstance(y, tuple) else parts[0]
        cotangents = self._to_numpy(self._backward(cache, y, delta), primals)

        def pullback(w: Delta) -> Cotangents:
            assert self.second is not None
            given = {n: self.backend.from_numpy(part) for n, part in zip(wrt, as_tuple(w), strict=True)}
            with self.backend.context():
                found = self.second(cache, delta_in_structure(y, delta), self.trees.rebuilt(given))
            if not isinstance(found, Mapping):
                raise InvalidInput(
                    f"{self.label}: second must return {{name: cotangent}}, got {describe(found)}.\n"
                    f"Fix:    return {{{', '.join(f'{n!r}: d{n}' for n in wrt)}, 'delta': ddelta}}"
                )
            root = free_names("delta", 1, primals)[0]
            named = self._to_numpy({n: g for n, g in found.items() if n not in (root, *deltas)}, primals)
            return named | self._of_deltas(found, root, deltas, y)

        results = tuple(cotangents[n] for n in wrt)
        return one_or_tuple(results), pullback

    def _of_deltas(self, found: Mapping[str, Any], root: str, deltas: tuple[str, ...], y: ForeignArray) -> Cotangents:
        """Return what ``second`` found of delta, array by array; it is in the structure of y, as delta itself is."""
        of_delta = found.get(root)
        if of_delta is None:
            return {n: self.backend.to_numpy(found[n]) for n in deltas if found.get(n) is not None}
        parts = as_tuple(flat_delta(of_delta, self.backend.tree_to_numpy(y)))
        if len(parts) != len(deltas):
            raise InvalidInput(
                f"{self.label}: second: {root}: expected the structure of y, {len(deltas)} array(s), "
                f"got {describe(of_delta)}.\nFix:    return {{..., {root!r}: ({', '.join(f'd{n}' for n in deltas)})}}"
            )
        return dict(zip(deltas, map(self.backend.to_numpy, parts), strict=True))

    def tangent_rule(self, tangents: Mapping[str, str]) -> Rule:
        """Return the Rule of the author's ``jvp``."""
        return Rule(partial(self._pushed_forward, tangents), self.label, runtime=self.backend.runtime)

    def _pushed_forward(self, tangents: Mapping[str, str], /, **arguments: Array) -> tuple[Output, Pullback]:
        assert self.jvp is not None
        converted = self.backend.primals_from_numpy(arguments)
        primals = self.trees.rebuilt({n: a for n, a in converted.items() if n not in {*tangents.values()}})
        along = self.trees.rebuilt({n: converted[t] for n, t in tangents.items()})
        with self.backend.context():
            result = self.jvp(primals, along)
        lines = "y = ...\n        return y, y_dot"
        pair = _pair(result, f"{self.label}: jvp", "(y, tangent of y)", lines)
        returned = taken_apart(pair[0])
        # A complex tangent of a real output is one array, which has the wrong dtype, and not two.
        of_y = taken_apart(pair[1]) if isinstance(returned, Outputs) else pair[1]
        y, pushed = (as_tuple(self.backend.tree_to_numpy(each)) for each in (returned, of_y))
        floating = [i for i, part in enumerate(y) if not is_discrete(part)]
        # Of an output of integers there may be a tangent, which is none.
        pushed = tuple(pushed[i] for i in floating) if len(pushed) == len(y) else pushed
        return (*(y[i] for i in floating), *pushed), lambda _: {}


def elementwise(
    f: Callable[[ForeignArray], ForeignArray],
    derivative: Callable[[ForeignArray], ForeignArray],
    *,
    of: str = "input",
    arrays: ArrayKind = "numpy",
    name: str | None = None,
) -> Rule:
    """Make a Rule of one primal from an activation and its derivative: dL/dz = delta · f'(z).

    Args:
        f: the activation, entry by entry.
        derivative: f' as a function ``of`` the "input" z, or of the "output" f(z): ``lambda a: a * (1 - a)``. For
            ``f(x, prime=True)`` it is ``lambda z: f(z, prime=True)``.
        of: "input" or "output".
        arrays: as in `manual`.
        name: as in `manual`.

    Returns:
        The Rule.

    Raises:
        InvalidInput: for another ``of``; when evaluated, if there is not one primal.
    """
    if of not in ("input", "output"):
        raise InvalidInput(f"elementwise: of: expected 'input' or 'output', got {of!r}")
    backend = backend_for(arrays)
    label = name or str(getattr(f, "__qualname__", "elementwise"))

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        if len(primals) != 1:
            raise InvalidInput(f"{label}: an elementwise function takes one primal, got {', '.join(primals)}")
        ((primal, array),) = primals.items()
        with backend.context():
            z = backend.from_numpy(array)
            y = f(z)

        def pullback(delta: Delta) -> Cotangents:
            with backend.context():
                product = backend.delta_from_numpy(delta) * derivative(z if of == "input" else y)
            return {primal: backend.to_numpy(product)}

        return backend.to_numpy(y), pullback

    rule = Rule(evaluate, label, runtime=backend.runtime, implementation=(f, derivative))
    return on_device(rule, default_device(arrays))


def value_and_grad(
    f: Callable[..., tuple[ForeignArray, ForeignArray]],
    wrt: str | Sequence[str] | None = None,
    *,
    arrays: ArrayKind = "numpy",
    has_aux: bool = False,
    name: str | None = None,
) -> Rule:
    """Make a Rule of a loss that returns its value and its gradient: ``f(**primals) -> (value, gradient)``.

    The cotangent of a primal is delta times its gradient. If the loss has one value per row, each row of the gradient
    is multiplied by that row's delta.

    Args:
        f: returns the value, and the gradient of one primal, or of several as a tuple or as ``{name: gradient}``.
        wrt: the primals that the gradients belong to. By default every floating primal, or the first one if ``f``
            returns a single gradient. The gradient of a tree has its structure.
        arrays: as in `manual`.
        has_aux: whether ``f`` returns ``((value, aux), gradient)``, as `jax.value_and_grad` does: aux is compared with
            that of the references, if they have one.
        name: as in `manual`.

    Returns:
        The Rule.

    Raises:
        InvalidInput: when evaluated, if ``f`` does not return a pair, or not one gradient for each primal of ``wrt``.
    """
    label = name or str(getattr(f, "__qualname__", "value_and_grad"))
    names = (wrt,) if isinstance(wrt, str) else None if wrt is None else tuple(wrt)
    return on_device(_value_and_grad(f, names, backend_for(arrays), has_aux, label, Trees()), default_device(arrays))


def _value_and_grad(
    f: Function, wrt: tuple[str, ...] | None, backend: Backend, has_aux: bool, label: str, trees: Trees
) -> Rule:
    """Make the Rule of `value_and_grad`, over the leaves of trees."""

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        with backend.context():
            result = call_by_name(trees.calling(f) if trees.roots else f, backend.primals_from_numpy(primals))
        if not (isinstance(result, tuple) and len(result) == 2):
            raise InvalidInput(
                f"{label}: expected a pair (value, gradient), got {describe(result)}.\nFix:    return loss, dy"
            )
        value, gradients = result
        y = backend.tree_to_numpy(taken_apart(with_auxiliary_of(value, label) if has_aux else value))
        named = _named_gradients(gradients, primals, wrt, label, trees)
        named = {n: backend.to_numpy(g) for n, g in named.items()}

        def pullback(delta: Delta) -> Cotangents:
            # The value itself stands first; what follows is auxiliary.
            first = as_tuple(delta)[0] if has_aux else delta
            return {n: _times(np.asarray(first), g) for n, g in named.items()}

        return y, pullback

    structured = Structured(evaluate, partial(_value_and_grad, f, wrt, backend, has_aux, label))
    return Rule(evaluate, label, runtime=backend.runtime, implementation=f, structured=structured)


def _named_gradients(
    gradients: object, primals: Primals, wrt: Sequence[str] | None, label: str, trees: Trees
) -> Cotangents:
    floating = trees.floating(primals)
    if isinstance(gradients, Mapping) and {*gradients} <= {*trees.leaf_names(primals), *primals}:
        return named_cotangents(gradients, primals, label, trees)
    if isinstance(gradients, Mapping) and not trees.roots:
        return named_cotangents(gradients, primals, label)
    names = tuple(wrt) if wrt is not None else tuple(floating if isinstance(gradients, tuple) else floating[:1])
    # A list is not taken for several gradients: it may be the gradient itself, in nested lists.
    parts = gradients if isinstance(gradients, tuple) else (gradients,)
    if len(parts) != len(names) or any(n not in trees.leaf_names(primals) for n in names):
        raise InvalidInput(
            f"{label}: expected {len(names)} gradient(s) for wrt={names} of the primals {', '.join(primals)}, "
            f"got {len(parts)}.\n"
            f"Fix: name their primals:    oracles.value_and_grad(f, wrt={tuple(floating[: len(parts)])})"
        )
    named = {n: g for n, g in zip(names, parts, strict=True) if g is not None}
    return {n: g for n, g in trees.cotangents(named, primals, label).items() if g is not None}


def _times(delta: Array, gradient: object) -> object:
    """Return delta · gradient; delta has the first axes of the gradient. Anything else is left to the judge."""
    if not isinstance(gradient, np.ndarray | np.generic) or delta.shape != gradient.shape[: delta.ndim]:
        return gradient
    # A loss with one value for each row has a delta of one axis; its entries weight the rows of the gradient.
    return np.asarray(delta.reshape(delta.shape + (1,) * (np.ndim(gradient) - delta.ndim)) * gradient)


def manual_layer(layer: Layer, *, name: str | None = None) -> Rule:
    """Make a Rule of a Layer of `manual_bp.protocol`, over its inputs (``z``, unless it names others) and parameters.

    An integer primal for an input called ``rng`` is the seed of a generator, made anew for each evaluation.

    Args:
        layer: the layer.
        name: what reports call the rule; the layer's repr by default.

    Returns:
        The Rule, with `Rule.adapt` for other layers.
    """
    from manual_bp.protocol import as_tuple, inputs_of  # the package imports all its layers

    names = inputs_of(layer)

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        inputs: tuple[Any, ...] = tuple(
            np.random.default_rng(int(primals[n])) if n.split(".")[-1] == "rng" else primals[n] for n in names
        )
        params = {n: a for n, a in primals.items() if n not in names}
        result = layer.forward(params, one_or_tuple(inputs))
        returned, cache = _pair_of_method(result, layer, "forward", "(y, cache)")
        y = taken_apart(returned)

        def pullback(delta: Delta) -> Cotangents:
            of_layer = layer.backward(cache, delta_in_structure(y, delta))
            dz, dparams = _pair_of_method(of_layer, layer, "backward", "(dz, dparams)")
            of_inputs = as_tuple(dz)
            if len(of_inputs) != len(names):
                raise InvalidInput(
                    f"{layer!r}: backward: expected the cotangents of {', '.join(names)}, got {len(of_inputs)}.\n"
                    f"Fix:    return ({', '.join(f'd{n}' for n in names)},), dparams"
                )
            _require_gradients(dparams, params, layer)
            # A configuration without a parameter has no gradient of it.
            of_params = {n: g for n, g in dparams.items() if g is not None or n in primals}
            return {**{n: g for n, g in zip(names, of_inputs, strict=True) if g is not None}, **of_params}

        return y, pullback

    return Rule(evaluate, name or repr(layer), implementation=layer, adapt=manual_layer)


def manual_loss(loss: Loss, target: Array | None = None, *, name: str | None = None) -> Rule:
    """Make a Rule of a Loss of `manual_bp.protocol`, over ``y`` and ``target``. It claims no gradient for the target.

    Args:
        loss: the loss.
        target: the target; if missing, it is a primal.
        name: what reports call the rule; the loss's repr by default.

    Returns:
        The Rule, with `Rule.adapt` for other losses.
    """

    def evaluate(y: Array, **rest: Array) -> tuple[Output, Pullback]:
        arguments = y, rest["target"] if target is None else target
        value, cache = _pair_of_method(loss.forward(*arguments), loss, "forward", "(value, cache)")
        return value, lambda delta: {"y": loss.backward(cache, delta)}

    return Rule(evaluate, name or repr(loss), implementation=loss, adapt=lambda other: manual_loss(other, target))


def manual_objective(network: Layer, loss: Loss, *, name: str | None = None) -> Rule:
    """Make one Rule of a network and its loss, over ``z``, ``target`` and the network's parameters.

    Args:
        network: a Layer of `manual_bp.protocol`.
        loss: a Loss of `manual_bp.protocol`.
        name: what reports call the rule.

    Returns:
        The Rule, with `Rule.adapt` for other pairs.
    """

    def evaluate(z: Array, target: Array, **params: Array) -> tuple[Output, Pullback]:
        y, cache = _pair_of_method(network.forward(params, z), network, "forward", "(y, cache)")
        value, loss_cache = _pair_of_method(loss.forward(y, target), loss, "forward", "(value, cache)")

        def pullback(delta: Delta) -> Cotangents:
            dy = loss.backward(loss_cache, delta)
            dz, dparams = _pair_of_method(network.backward(cache, dy), network, "backward", "(dz, dparams)")
            return {"z": dz, **dparams}

        return value, pullback

    label = name or f"{loss!r} of {network!r}"
    return Rule(evaluate, label, implementation=(network, loss), adapt=lambda pair: manual_objective(*pair))


def _require_gradients(dparams: object, params: Primals, layer: Layer) -> None:
    """Require an entry for each parameter in what a layer returns as the gradients of its parameters."""
    missing = [n for n in params if n not in dparams] if isinstance(dparams, Mapping) else list(params)
    if missing or not isinstance(dparams, Mapping):
        expected = ", ".join(f"{n!r}: d{n}" for n in params)
        raise InvalidInput(
            f"{layer!r}: backward: expected a dict with the gradients of {', '.join(params) or 'no parameter'}, "
            f"got {describe(dparams)}{' without ' + ', '.join(missing) if isinstance(dparams, Mapping) else ''}.\n"
            f"Fix:    return dz, {{{expected}}}      # None for one that has no gradient"
        )


def _pair(result: object, what: str, expected: str, fix: str) -> tuple[Any, Any]:
    """Return what a function of the user's returned, if that is a pair.

    Raises:
        InvalidInput: if it is not; states the lines to write.
    """
    if isinstance(result, tuple) and len(result) == 2:
        return result
    raise InvalidInput(f"{what} must return a pair {expected}, got {describe(result)}.\nFix:    {fix}")


def _pair_of_method(result: object, owner: object, method: str, expected: str) -> tuple[Any, Any]:
    """Return what a method of `manual_bp.protocol` returned, if that is a pair; as `_pair`."""
    return _pair(result, f"{owner!r}: {method}", expected, f"return {expected.strip('()')}")


def _is_tree_of_one(gradients: Mapping[str, object], roots: Mapping[str, object], primals: Primals) -> bool:
    """Return whether a mapping is the gradient of the one primal, which is a dict, and not a gradient by its name."""
    return len(roots) == 1 and not {*gradients} & {*roots, *primals} and not {*primals} <= {*roots}


def _note_missing(gradients: Mapping[str, object], floating: Sequence[str], label: str) -> None:
    """Note the primals that a backward does not name; ``None`` says that there is no gradient."""
    missing = [n for n in floating if n not in gradients]
    if missing:
        whole = ", ".join(f"{n!r}: d{n}" for n in floating)
        note(f"{label} returns nothing for {', '.join(missing)}; to have all judged: return {{{whole}}}")


def named_cotangents(gradients: object, primals: Primals, label: str, trees: Trees = NO_TREES) -> Cotangents:
    """Return what a hand-written backward returned as ``{name: cotangent}``, without ``None``.

    Args:
        gradients: a mapping, or one cotangent for each primal, or for each floating primal, in their order. Of one
            primal that is a tree, its cotangent alone may be returned.
        primals: the point.
        label: the subject's name, for the messages.
        trees: the structures of primals that are trees; ``primals`` has their leaves.

    Raises:
        InvalidInput: if there are more or fewer cotangents, or one of them belongs to no primal.
    """
    floating, roots = trees.floating(primals), trees.leaf_names(primals)
    if not isinstance(gradients, Mapping) or _is_tree_of_one(gradients, roots, primals):
        parts = gradients if isinstance(gradients, tuple) else (gradients,)
        if trees.roots and len(roots) == 1 and (len(parts) != 1 or node_of(parts[0]) is None):
            parts = (gradients,)  # the tree is a tuple
        # A backward may return None for an integer primal, or leave it out: both counts of cotangents are common.
        names = next((n for n in (list(roots), floating) if len(n) == len(parts)), None)
        if names is None or gradients is None:
            raise InvalidInput(
                f"{label}: backward: expected a dict, or a tuple of {len(roots)} cotangents in the order of the "
                f"primals ({', '.join(roots)}), got {describe(gradients)}.\n"
                f"Fix:    return {{{', '.join(f'{n!r}: d{n}' for n in floating[:3])}}}"
            )
        gradients = dict(zip(names, parts, strict=True))
    else:
        given = [n for n in floating if n in gradients or all(leaf in gradients for leaf in roots[n])]
        _note_missing(dict.fromkeys(given), floating, label)
    # A tree may also be given leaf by leaf.
    require_primals(gradients, {**dict.fromkeys(roots, np.zeros(())), **primals} if trees.roots else primals, label)
    return {n: g for n, g in trees.cotangents(gradients, primals, label).items() if g is not None}
