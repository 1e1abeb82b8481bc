"""Lift a `jax.custom_vjp`, JAX's hand-written backward: its own fwd and bwd, and what JAX makes of them."""

from __future__ import annotations

import copyreg
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oracles.adapters.functions import given, taken
from oracles.backends.arrays import backend_for
from oracles.rule import Array, Cotangents, InvalidInput, Primals, Pullback, Rule, is_differentiable

_BACKEND = backend_for("jax")


def jax_function(f: Callable[..., Any], *, options: Mapping[str, Any] | None = None, name: str | None = None) -> Rule:
    """Lift a `jax.custom_vjp` into a Rule: what bwd returns is judged before JAX fills in zeros for ``None``.

    Beside that, `jax.vjp` is checked, with and without `jax.jit`, and the function without a derivative against fwd.
    A function that has no custom rule is differentiated by JAX.

    Args:
        f: the function, ``f(**primals, **options)``.
        options: its other arguments by name, those of ``nondiff_argnums`` among them.
        name: what reports call it.

    Raises:
        InvalidInput: if this is no function, or its parameters are others than the primals and options.
    """
    if not callable(f):
        raise InvalidInput(f"jax_function: expected a function or a jax.custom_vjp, got {f!r:.60}")
    rest = dict(options or {})
    plain = getattr(f, "fun", f)
    label = name or str(getattr(plain, "__name__", "jax_function"))
    static = tuple(getattr(f, "nondiff_argnums", ()))

    def order(primals: Primals) -> list[str]:
        parameters = inspect.signature(plain).parameters
        names = [p for p in parameters if p in primals or p in rest]
        if any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
            names += [n for n in primals if n not in names]
        if not names and not rest and len(primals) <= len(parameters):
            return list(primals)  # none of the names is a parameter's: in their order, as jnp.tanh(x) of a primal z
        if {*names} != {*primals, *rest}:
            raise InvalidInput(
                f"{label}: takes {inspect.signature(plain)}, but the primals are {', '.join(primals)}"
                + (f", the options {', '.join(rest)}" if rest else "")
                + f".\nFix: name the primals like its parameters, or\n    def {label}({', '.join(primals)}): ..."
            )
        return names

    def own(**primals: Array) -> tuple[Any, Pullback]:
        names, taken_ = order(primals), {**_BACKEND.from_numpy_all(primals), **rest}
        with _BACKEND.context():
            y, residuals = f.fwd(*(taken_[n] for n in names))  # type: ignore[attr-defined]

        def pullback(delta: Any) -> Cotangents:
            with _BACKEND.context():
                came = f.bwd(*(taken_[names[i]] for i in static), residuals, taken(delta, _BACKEND))  # type: ignore[attr-defined]
            rules = [n for i, n in enumerate(names) if i not in static]
            parts = tuple(came) if isinstance(came, tuple | list) else (came,)
            if len(parts) != len(rules):
                raise TypeError(
                    f"bwd returned {len(parts)} cotangents for the {len(rules)} arguments {', '.join(rules)}"
                )
            return _floating(primals, zip(rules, parts, strict=True))

        return given(y, _BACKEND), pullback

    def by_jax(compiled: bool, **primals: Array) -> tuple[Any, Pullback]:
        import jax

        names = order(primals)
        judged = [n for n in names if n in primals and is_differentiable(primals[n])]
        fixed = {**_BACKEND.from_numpy_all({n: a for n, a in primals.items() if n not in judged}), **rest}

        def of_judged(*arrays: Any) -> Any:
            at = {**fixed, **dict(zip(judged, arrays, strict=True))}
            return f(*(at[n] for n in names))

        def pulled(arrays: Sequence[Any], delta: Any) -> Any:
            return jax.vjp(of_judged, *arrays)[1](delta)

        arrays = [_BACKEND.from_numpy(primals[n]) for n in judged]
        with _BACKEND.context():
            y = (jax.jit(of_judged) if compiled else of_judged)(*arrays)

        def pullback(delta: Any) -> Cotangents:
            with _BACKEND.context():
                came = (jax.jit(pulled) if compiled else pulled)(arrays, taken(delta, _BACKEND))
            return _floating(primals, zip(judged, came, strict=True))

        return given(y, _BACKEND), pullback

    def eager(**primals: Array) -> tuple[Any, Pullback]:
        return by_jax(False, **primals)

    def jitted(**primals: Array) -> tuple[Any, Pullback]:
        return by_jax(True, **primals)

    custom = hasattr(f, "fwd") and hasattr(f, "bwd") and not getattr(f, "symbolic_zeros", False)
    if custom:
        copyreg.pickle(type(f), _taken_apart)
    ways = {"jax.vjp": eager, "jax.vjp under jax.jit": jitted} if custom else {"jax.jit": jitted}
    return Rule(own if custom else eager, label, framework="jax", implementation=f, call_patterns=ways)


def _taken_apart(f: Any) -> tuple[Any, ...]:
    """Return how a custom_vjp is put together in another process: pickle alone does not know, see `isolated`."""
    return type(f), (f.fun, f.nondiff_argnums), dict(vars(f))


def _floating(primals: Primals, cotangents: Any) -> Cotangents:
    return {
        n: _BACKEND.to_numpy(g)
        for n, g in cotangents
        if g is not None and n in primals and is_differentiable(primals[n])
    }
