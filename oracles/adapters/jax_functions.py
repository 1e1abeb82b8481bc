"""Adapter of `jax.custom_vjp`, JAX's form of a hand-written backward: its own fwd and bwd, and JAX's use of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.backends.arrays import ForeignArray, backend_for
from oracles.backends.devices import Device, on_device
from oracles.lazy_modules import jax, jnp
from oracles.outputs import DETACHED, Outputs, delta_in_structure, form_of, like, taken_apart
from oracles.perturbation.jaxpr_reading import carrying
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
    Runtime,
    Structured,
    as_tuple,
    is_differentiable,
)
from oracles.signatures import signature_of
from oracles.structure import NO_TREES, Trees, with_auxiliary_of
from oracles.user_code import Raised, attempt

CustomVjp: TypeAlias = Any  # a jax.custom_vjp, or another function of JAX arrays

_BACKEND = backend_for("jax")


def jax_function(
    f: Function,
    *,
    options: Mapping[str, object] | None = None,
    has_aux: bool = False,
    device: Device = None,
    name: str | None = None,
) -> Rule:
    """Make a Rule of a `jax.custom_vjp`; what bwd returns is judged before JAX replaces ``None`` by zeros.

    Call patterns check `jax.vjp` too, with and without `jax.jit`, and so the function without a derivative against fwd.
    A function without a custom rule is differentiated by JAX.

    Args:
        f: the function, ``f(**primals, **options)``; a `functools.partial` of one binds options too.
        options: its other arguments by name, those of ``nondiff_argnums`` included; others have their defaults.
        has_aux: whether it returns ``(y, aux)``, of which aux carries no gradient and is compared as values.
        device: where the arrays lie, "cuda" or "cpu" for example. By default where `check` says, else where JAX puts
            them.
        name: what reports call the rule.

    Returns:
        The Rule.

    Raises:
        InvalidInput: if this is no function; when evaluated, if its parameters are not the primals and options.
    """
    if not callable(f):
        raise InvalidInput(f"jax_function: expected a function or a jax.custom_vjp, got {f!r:.60}")
    f, bound = _without_partial(f)
    plain = getattr(f, "fun", f)
    label = name or str(getattr(plain, "__name__", "jax_function"))
    nondiff = tuple(getattr(f, "nondiff_argnums", ()))
    subject = _Function(f, plain, {**bound, **(options or {})}, nondiff, label, has_aux)
    return on_device(_jax_rule(subject, NO_TREES), device)


def _jax_rule(subject: _Function, trees: Trees) -> Rule:
    """Make the Rule of `jax_function`, over the leaves of trees."""
    f, subject = subject.f, replace(subject, trees=trees)
    eager, jitted = partial(subject.by_jax, False), partial(subject.by_jax, True)
    # With symbolic zeros, fwd and bwd take other arguments than arrays, which JAX alone can make.
    is_custom = hasattr(f, "fwd") and hasattr(f, "bwd") and not getattr(f, "symbolic_zeros", False)
    evaluate = subject.own_backward if is_custom else eager
    return Rule(
        evaluate,
        subject.label,
        runtime=Runtime.JAX,
        implementation=f,
        structured=Structured(evaluate, partial(_jax_rule, subject)),
        derived=Derived(evaluate, subject.second, subject.tangent, partial(subject.compiled_primal, is_custom)),
        call_patterns={"jax.vjp": eager, "jax.vjp under jax.jit": jitted} if is_custom else {"jax.jit": jitted},
    )


@dataclass(frozen=True)
class _Function:
    """The arguments of `jax_function`, and the ways to evaluate it."""

    f: CustomVjp
    plain: Function
    options: Mapping[str, object]
    nondiff_argnums: tuple[int, ...]
    label: str
    has_aux: bool = False
    trees: Trees = NO_TREES

    def own_backward(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate the function's own fwd and bwd."""
        names = self._argument_order(primals)
        arguments = self._arguments(_BACKEND.primals_from_numpy(primals), names)
        with _BACKEND.context():
            returned, residuals = self._call(self.f.fwd, arguments, names)
        y = self._taken_apart(returned)

        def pullback(delta: Delta) -> Cotangents:
            nondiff = [arguments[names[i]] for i in self.nondiff_argnums]
            with _BACKEND.context():
                cotangent = delta_in_structure(y, _delta_of(y, _BACKEND.delta_from_numpy(delta)), whole=True)
                result = _conjugated(self.f.bwd(*nondiff, residuals, _conjugated(cotangent)))
            arrays = [n for i, n in enumerate(names) if i not in self.nondiff_argnums]
            parts = tuple(result) if isinstance(result, tuple | list) else (result,)
            if len(parts) != len(arrays) and self._spreads(arguments, arrays):
                first = len(arrays) - 1
                parts = (*parts[:first], tuple(parts[first:]))
            if len(parts) != len(arrays):
                raise TypeError(
                    f"bwd returned {len(parts)} cotangents for the {len(arrays)} arguments {', '.join(arrays)}"
                )
            named = {n: g for n, g in zip(arrays, parts, strict=True) if g is not None and n in self._roots(primals)}
            return _cotangents(primals, self.trees.cotangents(named, primals, self.label).items())

        return _BACKEND.tree_to_numpy(y), pullback

    def by_jax(self, compiled: bool, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate the function and its `jax.vjp`, compiled by `jax.jit` or not."""
        floating, form = [n for n in primals if is_differentiable(primals[n])], list[ForeignArray]()
        of_floating = partial(self._of_floating, primals, form)

        def pulled_back(arrays: Sequence[ForeignArray], deltas: Sequence[ForeignArray]) -> ForeignArray:
            return jax.vjp(of_floating, arrays, has_aux=True)[1](deltas)[0]

        arrays = [_BACKEND.from_numpy(primals[n]) for n in floating]
        with _BACKEND.context():
            carrying_gradient, others = (jax.jit(of_floating) if compiled else of_floating)(arrays)
        skeleton, silent = _with_detached(form, lambda given: of_floating(given)[0], arrays)
        parts, first, second = [], iter(carrying_gradient), iter(others)
        for i in range(len(as_tuple(skeleton))):
            parts.append(next(second) if i in silent else next(first))

        def pullback(delta: Delta) -> Cotangents:
            with _BACKEND.context():
                function = jax.jit(pulled_back) if compiled else pulled_back
                deltas = [d for i, d in enumerate(as_tuple(_BACKEND.delta_from_numpy(delta))) if i not in silent]
                gradients = function(arrays, deltas)
            return _cotangents(primals, zip(floating, gradients, strict=True))

        return _BACKEND.tree_to_numpy(like(skeleton, parts)), pullback

    def compiled_primal(self, own: bool, primals: Primals) -> Function:
        """Return the primal in one compiled function, of primals of these shapes and integers; its own fwd or JAX's."""
        floating, form = [n for n in primals if is_differentiable(primals[n])], list[ForeignArray]()

        def outputs(arrays: Sequence[ForeignArray]) -> list[ForeignArray]:
            names, moving = self._argument_order(primals), iter(arrays)
            given = {n: next(moving) if is_differentiable(a) else _BACKEND.from_numpy(a) for n, a in primals.items()}
            returned = self._call(self.f.fwd if own else self.f, self._arguments(given, names), names)
            y = self._taken_apart(returned[0] if own else returned)
            form[:] = [form_of(y)]
            return list(as_tuple(y))

        compiled = jax.jit(outputs)

        def evaluate(**point: Array) -> Output:
            with _BACKEND.context():
                parts = compiled([_BACKEND.from_numpy(point[n]) for n in floating])
            values: Output = _BACKEND.tree_to_numpy(like(form[0], parts))
            return values

        return evaluate

    def _of_floating(
        self, primals: Primals, form: list[ForeignArray], arrays: Sequence[ForeignArray]
    ) -> tuple[list[ForeignArray], list[ForeignArray]]:
        """Return the outputs that carry a gradient, and the others, as a function of the floating primals.

        ``form`` is set to their structure, and to the positions of the others.
        """
        names = self._argument_order(primals)
        moving = iter(arrays)
        given = {n: next(moving) if is_differentiable(a) else _BACKEND.from_numpy(a) for n, a in primals.items()}
        y = self._taken_apart(self._call(self.f, self._arguments(given, names), names))
        parts, silent = list(as_tuple(y)), _silent(y)
        form[:] = [form_of(y), silent]
        return [p for i, p in enumerate(parts) if i not in silent], [parts[i] for i in silent]

    def second(self, wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
        """Return the Rule of the pullback by `jax.vjp`, which JAX differentiates again."""
        evaluate = partial(self._differentiated_twice, wrt, deltas)
        return Rule(evaluate, self.label, runtime=Runtime.JAX, implementation=self.f)

    def _differentiated_twice(
        self, wrt: tuple[str, ...], deltas: tuple[str, ...], /, **arguments: Array
    ) -> tuple[Output, Pullback]:
        primals = {n: a for n, a in arguments.items() if n not in deltas}
        moving, form = [n for n in primals if is_differentiable(primals[n])], list[ForeignArray]()

        def pulled_back(arrays: Sequence[ForeignArray], seeds: Sequence[ForeignArray]) -> list[ForeignArray]:
            _, pull, _ = jax.vjp(partial(self._of_floating, primals, form), arrays, has_aux=True)
            (gradients,) = pull([seed for i, seed in enumerate(seeds) if i not in form[1]])
            return [g for n, g in zip(moving, gradients, strict=True) if n in wrt]

        arrays = [_BACKEND.from_numpy(arguments[n]) for n in moving]
        seeds = [_BACKEND.from_numpy(arguments[n]) for n in deltas]
        with _BACKEND.context():
            gradients, pull = jax.vjp(pulled_back, arrays, seeds)
        by_name = dict(zip([n for n in moving if n in wrt], gradients, strict=True))

        def pullback(w: Delta) -> Cotangents:
            given = dict(zip(wrt, map(_BACKEND.from_numpy, as_tuple(w)), strict=True))
            with _BACKEND.context():
                of_arrays, of_seeds = pull([given[n] for n in by_name])
            return _cotangents(arguments, zip([*moving, *deltas], [*of_arrays, *of_seeds], strict=True))

        results = tuple(_BACKEND.to_numpy(by_name[n]) for n in wrt)
        return results if len(results) > 1 else results[0], pullback

    def tangent(self, tangents: Mapping[str, str]) -> Rule:
        """Return the Rule of the forward mode by `jax.jvp`."""
        evaluate = partial(self._pushed_forward, tangents, False)
        is_batched = any(isinstance(f, jax.custom_batching.custom_vmap) for f in (self.f, self.plain))
        patterns = {"jax.vmap": partial(self._pushed_forward, tangents, True)} if is_batched else {}
        return Rule(evaluate, self.label, runtime=Runtime.JAX, implementation=self.f, call_patterns=patterns)

    def _pushed_forward(
        self, tangents: Mapping[str, str], under_vmap: bool, /, **arguments: Array
    ) -> tuple[Output, Pullback]:
        """Evaluate outputs and tangents, by themselves or as the second of a batch of four under `jax.vmap`."""
        primals = {n: a for n, a in arguments.items() if n not in {*tangents.values()}}
        moving = [n for n in primals if is_differentiable(primals[n])]
        arrays = [_BACKEND.from_numpy(primals[n]) for n in moving]
        along = [
            _BACKEND.from_numpy(arguments[tangents[n]]) if n in tangents else jnp.zeros_like(a)
            for n, a in zip(moving, arrays, strict=True)
        ]

        def pushed_at(
            arrays: Sequence[ForeignArray], along: Sequence[ForeignArray]
        ) -> tuple[list[ForeignArray], list[ForeignArray]]:
            ys, pushed, _ = jax.jvp(partial(self._of_floating, primals, []), (arrays,), (along,), has_aux=True)
            return ys, pushed

        try:
            with _BACKEND.context():
                if under_vmap:
                    batch = [[jnp.stack([2 * a, a, 0.5 * a, 3 * a]) for a in each] for each in (arrays, along)]
                    # The outputs without tangents: JAX may leave the rule out where it differentiates.
                    function = partial(self._of_floating, primals, [])
                    ys = [part[1] for part in jax.vmap(lambda arrays: function(arrays)[0])(batch[0])]
                    pushed = [part[1] for part in jax.vmap(pushed_at)(*batch)[1]]
                else:
                    ys, pushed = pushed_at(arrays, along)
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
            raise InvalidInput(
                f"mode: {self.label} is a jax.custom_vjp, which has no forward mode.\nFix:    mode='vjp'"
            ) from error
        return tuple(_BACKEND.to_numpy(part) for part in (*ys, *pushed)), lambda _: {}

    def _taken_apart(self, returned: ForeignArray) -> ForeignArray:
        return taken_apart(with_auxiliary_of(returned, self.label) if self.has_aux else returned)

    def _call(self, f: Function, arguments: Mapping[str, ForeignArray], names: Sequence[str]) -> ForeignArray:
        """Call a function with its arguments in their order; those of ``*xs`` are spread."""
        last = [arguments[n] for n in names]
        if names and self._spreads(arguments, names):
            last = [*last[:-1], *last[-1]]
        return f(*last)

    def _spreads(self, arguments: Mapping[str, ForeignArray], names: Sequence[str]) -> bool:
        """Return whether the last argument is a list for ``*xs``."""
        signature = signature_of(self.plain)
        parameter = signature.parameters.get(names[-1]) if signature and names else None
        is_variadic = parameter is not None and parameter.kind is parameter.VAR_POSITIONAL
        return is_variadic and isinstance(arguments[names[-1]], tuple | list)

    def _roots(self, primals: Primals) -> dict[str, list[str]]:
        return self.trees.leaf_names(primals)

    def _argument_order(self, primals: Primals) -> list[str]:
        """Return the order in which the function takes primals and options: by name, else as the primals stand."""
        return self._order_of(list(self._roots(primals)))

    def _order_of(self, primals: list[str]) -> list[str]:
        signature = signature_of(self.plain)
        parameters = signature.parameters if signature else {}
        names = [p for p in parameters if p in primals or p in self.options]
        if signature is None or any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
            names += [n for n in primals if n not in names]
        if not names and not self.options and len(primals) <= len(parameters):
            names = list(primals)  # no primal has a parameter's name, as with jnp.tanh(x) of a primal z
        if {*names} != {*primals, *self.options}:
            options = f" and the options {', '.join(self.options)}" if self.options else ""
            raise InvalidInput(
                f"{self.label}: primals: expected the parameters {signature}, got {', '.join(primals)}{options}.\n"
                f"Fix: name the primals like its parameters, or\n    def {self.label}({', '.join(primals)}): ..."
            )
        order = self._with_defaults(names, parameters)
        self._require_static(order, primals)
        return order

    def _require_static(self, names: Sequence[str], primals: Sequence[str]) -> None:
        """Check that no argument of ``nondiff_argnums`` is a primal: JAX takes plain Python values there."""
        static = [names[i] for i in self.nondiff_argnums if i < len(names) and names[i] in primals]
        if static:
            bound = ", ".join(f"{n}=..." for n in static)
            raise InvalidInput(
                f"{self.label}: primals: expected no {', '.join(static)}: nondiff_argnums declares that it has no "
                "cotangent, and its value is no array.\n"
                f"Fix: bind its value, and leave it out of the primals:\n"
                f"    oracles.jax_function(functools.partial({self.label}, {bound}))"
            )

    def _with_defaults(self, names: list[str], parameters: Mapping[str, inspect.Parameter]) -> list[str]:
        """Return the arguments with those before the last one that have a default: they are passed by position."""
        last = max((i for i, p in enumerate(parameters) if p in names), default=-1)
        before = [p for i, p in enumerate(parameters) if i <= last]
        return [*before, *(n for n in names if n not in before)]

    def _arguments(self, primals: Mapping[str, ForeignArray], names: Sequence[str]) -> dict[str, ForeignArray]:
        """Return the arguments by name: primals, options and defaults."""
        signature = signature_of(self.plain)
        defaults = {n: p.default for n, p in signature.parameters.items() if n in names} if signature else {}
        arguments = {**defaults, **self.options, **self.trees.rebuilt(primals)}
        missing = [n for n in names if arguments[n] is inspect.Parameter.empty]
        if missing:
            raise InvalidInput(
                f"{self.label}: it needs {', '.join(missing)}; the primals are {', '.join(primals)}.\n"
                f"Fix: pass what is no array as an option:    "
                f"oracles.jax_function(..., options={{{missing[0]!r}: ...}})"
            )
        return arguments


def _conjugated(tree: ForeignArray) -> ForeignArray:
    """Return cotangents in JAX's convention for those in torch's, and back: complex arrays are conjugated."""

    def conjugate(leaf: ForeignArray) -> ForeignArray:
        return jnp.conj(leaf) if getattr(getattr(leaf, "dtype", None), "kind", "") == "c" else leaf

    return jax.tree.map(conjugate, tree)


def _without_partial(f: Function) -> tuple[Function, dict[str, object]]:
    """Return a function without `functools.partial`, and what that binds, by name: a custom rule stays visible so."""
    if not isinstance(f, partial):
        return f, {}
    inner, bound = _without_partial(f.func)
    signature = signature_of(getattr(inner, "fun", inner))
    free = [n for n in signature.parameters if n not in bound] if signature else []
    if not hasattr(inner, "fwd") or len(free) < len(f.args):
        return f, {}
    return inner, {**bound, **dict(zip(free, f.args, strict=False)), **f.keywords}


def rebuild_from(f: CustomVjp) -> tuple[Any, ...]:
    """Return how to rebuild a `jax.custom_vjp` in another process, as ``__reduce__`` does: pickle alone cannot."""
    return type(f), (f.fun, f.nondiff_argnums), dict(vars(f))


def _silent(y: ForeignArray) -> list[int]:
    """Return the positions of the outputs that carry no gradient: integers, and what is auxiliary."""
    aux = y.without if isinstance(y, Outputs) else {}
    return [i for i, p in enumerate(as_tuple(y)) if i in aux or not jnp.issubdtype(jnp.result_type(p), jnp.inexact)]


def _with_detached(form: Sequence[Any], f: Function, arrays: Sequence[ForeignArray]) -> tuple[ForeignArray, list[int]]:
    """Return the form of the outputs with those that `jax.lax.stop_gradient` detaches, and the positions without f's.

    Args:
        form: the outputs without their arrays, and the positions of those that ``f`` does not return.
        f: returns the outputs that carry a gradient, unless they are detached.
        arrays: its argument.
    """
    skeleton, silent = form
    positions = [i for i in range(len(as_tuple(skeleton))) if i not in silent]
    if len(positions) < 2:
        return skeleton, silent
    with _BACKEND.context():
        # Code may branch on the values of its arguments, which a trace does not have.
        traced = attempt(lambda: jax.make_jaxpr(f)(arrays).jaxpr)
    carry = [True] if isinstance(traced, Raised) else carrying(traced)
    if all(carry) or not any(carry):
        return skeleton, silent
    without = {i: DETACHED for i, carries in zip(positions, carry, strict=True) if not carries}
    if isinstance(skeleton, Outputs):
        return skeleton.but_without(without), silent
    return Outputs(skeleton, (), without), silent


def _delta_of(y: ForeignArray, delta: ForeignArray) -> ForeignArray:
    """Return a cotangent as JAX passes it: of integers it is an array of JAX's empty type."""
    empty = jax.dtypes.float0
    parts = [
        d if jnp.issubdtype(jnp.result_type(p), jnp.inexact) else np.zeros(jnp.shape(p), empty)
        for p, d in zip(as_tuple(y), as_tuple(delta), strict=True)
    ]
    return tuple(parts) if isinstance(delta, tuple) else parts[0]


def _cotangents(primals: Primals, gradients: Iterable[tuple[str, ForeignArray]]) -> Cotangents:
    return {
        n: _BACKEND.to_numpy(g)
        for n, g in gradients
        if g is not None and n in primals and is_differentiable(primals[n])
    }
