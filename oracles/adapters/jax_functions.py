"""Adapter of `jax.custom_vjp`, JAX's form of a hand-written backward: its own fwd and bwd, and JAX's use of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from oracles.backends.arrays import ForeignArray, backend_for
from oracles.backends.devices import Device, on_device
from oracles.lazy_modules import jax
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Function,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    Runtime,
    is_differentiable,
)
from oracles.signatures import signature_of

CustomVjp: TypeAlias = Any  # a jax.custom_vjp, or another function of JAX arrays

_BACKEND = backend_for("jax")


def jax_function(
    f: Function, *, options: Mapping[str, object] | None = None, device: Device = None, name: str | None = None
) -> Rule:
    """Make a Rule of a `jax.custom_vjp`; what bwd returns is judged before JAX replaces ``None`` by zeros.

    Call patterns check `jax.vjp` too, with and without `jax.jit`, and so the function without a derivative against fwd.
    A function without a custom rule is differentiated by JAX.

    Args:
        f: the function, ``f(**primals, **options)``; a `functools.partial` of one binds options too.
        options: its other arguments by name, those of ``nondiff_argnums`` included; others have their defaults.
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
    subject = _Function(f, plain, {**bound, **(options or {})}, tuple(getattr(f, "nondiff_argnums", ())), label)
    eager, jitted = partial(subject.by_jax, False), partial(subject.by_jax, True)
    # With symbolic zeros, fwd and bwd take other arguments than arrays, which JAX alone can make.
    is_custom = hasattr(f, "fwd") and hasattr(f, "bwd") and not getattr(f, "symbolic_zeros", False)
    rule = Rule(
        subject.own_backward if is_custom else eager,
        label,
        runtime=Runtime.JAX,
        implementation=f,
        call_patterns={"jax.vjp": eager, "jax.vjp under jax.jit": jitted} if is_custom else {"jax.jit": jitted},
    )
    return on_device(rule, device)


@dataclass(frozen=True)
class _Function:
    """The arguments of `jax_function`, and the ways to evaluate it."""

    f: CustomVjp
    plain: Function
    options: Mapping[str, object]
    nondiff_argnums: tuple[int, ...]
    label: str

    def own_backward(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate the function's own fwd and bwd."""
        names = self._argument_order(primals)
        arguments = self._arguments(_BACKEND.primals_from_numpy(primals), names)
        with _BACKEND.context():
            y, residuals = self.f.fwd(*(arguments[n] for n in names))

        def pullback(delta: Delta) -> Cotangents:
            nondiff = [arguments[names[i]] for i in self.nondiff_argnums]
            with _BACKEND.context():
                result = self.f.bwd(*nondiff, residuals, _BACKEND.delta_from_numpy(delta))
            arrays = [n for i, n in enumerate(names) if i not in self.nondiff_argnums]
            parts = tuple(result) if isinstance(result, tuple | list) else (result,)
            if len(parts) != len(arrays):
                raise TypeError(
                    f"bwd returned {len(parts)} cotangents for the {len(arrays)} arguments {', '.join(arrays)}"
                )
            return _cotangents(primals, zip(arrays, parts, strict=True))

        return _BACKEND.tree_to_numpy(y), pullback

    def by_jax(self, compiled: bool, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate the function and its `jax.vjp`, compiled by `jax.jit` or not."""
        names = self._argument_order(primals)
        floating = [n for n in names if n in primals and is_differentiable(primals[n])]
        rest = _BACKEND.primals_from_numpy({n: a for n, a in primals.items() if n not in floating})

        def of_floating(*arrays: ForeignArray) -> ForeignArray:
            arguments = self._arguments({**rest, **dict(zip(floating, arrays, strict=True))}, names)
            return self.f(*(arguments[n] for n in names))

        def pulled_back(arrays: Sequence[ForeignArray], delta: ForeignArray) -> ForeignArray:
            return jax.vjp(of_floating, *arrays)[1](delta)

        arrays = [_BACKEND.from_numpy(primals[n]) for n in floating]
        with _BACKEND.context():
            y = (jax.jit(of_floating) if compiled else of_floating)(*arrays)

        def pullback(delta: Delta) -> Cotangents:
            with _BACKEND.context():
                function = jax.jit(pulled_back) if compiled else pulled_back
                gradients = function(arrays, _BACKEND.delta_from_numpy(delta))
            return _cotangents(primals, zip(floating, gradients, strict=True))

        return _BACKEND.tree_to_numpy(y), pullback

    def _argument_order(self, primals: Primals) -> list[str]:
        """Return the order in which the function takes primals and options: by name, else as the primals stand."""
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

    def _require_static(self, names: Sequence[str], primals: Primals) -> None:
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
        arguments = {**defaults, **self.options, **primals}
        missing = [n for n in names if arguments[n] is inspect.Parameter.empty]
        if missing:
            raise InvalidInput(
                f"{self.label}: it needs {', '.join(missing)}; the primals are {', '.join(primals)}.\n"
                f"Fix: pass what is no array as an option:    "
                f"oracles.jax_function(..., options={{{missing[0]!r}: ...}})"
            )
        return arguments


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


def _cotangents(primals: Primals, gradients: Iterable[tuple[str, ForeignArray]]) -> Cotangents:
    return {
        n: _BACKEND.to_numpy(g)
        for n, g in gradients
        if g is not None and n in primals and is_differentiable(primals[n])
    }
