"""Derive with JAX: trace a primal and its VJP for a pattern of dimensions, or compile them for one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from oracles.jaxpr.dimensions import Example, Pattern, decided_by, is_symbol
from oracles.jaxpr.options import Options
from oracles.rule import Array, Primals, called, is_differentiable, outputs

XLA_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


class Trace(NamedTuple):
    """What JAX derived: jaxprs of arrays → (outputs, residuals) and of (residuals, deltas) → cotangents.

    The first ``width`` results of the forward are the outputs; ``fixed`` are residuals that are constants, by place.
    """

    forward: Any
    pull: Any
    is_tuple: bool
    width: int
    fixed: Mapping[int, Any]


class Executables(NamedTuple):
    """The primal and its cotangents through XLA; the latter compile on demand."""

    forward: Callable[[Sequence[Array]], list[Any]]
    pull: Callable[[Sequence[Array], Sequence[Array]], list[Any]]
    is_tuple: bool


def trace(f: Callable[..., Any], primals: Primals, options: Options, pattern: Pattern, example: Example) -> Trace:
    """Trace a primal and its VJP, dimensions by pattern, and what the trace depends on by the example.

    The pullback is JAX's own continuation of the forward, from what that has kept: nothing is traced twice.

    Raises:
        TypeError: if f branches in Python on the value of a primal.
        Exception: whatever f raises on these shapes, noted with the shapes.
    """
    import jax

    symbols = _symbols(pattern)
    example.scope = next((symbol.scope for symbol in symbols.values()), None)
    with jax.enable_x64(True), _explained(primals), decided_by(example):
        dims = [eval(entry, dict(symbols)) if isinstance(entry, str) else entry for entry in pattern]
        shapes, settings = _filled(primals, options, dims)
        _, vjp, is_tuple = _functions(f, primals, settings)
        kept: list[Any] = []

        def forward(arrays: Sequence[Any]) -> Any:
            ys, pull = vjp(arrays)
            leaves, structure = jax.tree.flatten(pull)
            kept[:] = [structure, len(ys)]
            return [*ys, *leaves]

        closed, results = jax.make_jaxpr(forward, return_shape=True)(shapes)
        structure, width = kept
        pull = jax.make_jaxpr(lambda residuals, deltas: jax.tree.unflatten(structure, residuals)(deltas)[0])(
            results[width:], _deltas(results[:width])
        )
    literals = {i: atom.val for i, atom in enumerate(closed.jaxpr.outvars[width:]) if hasattr(atom, "val")}
    return Trace(closed, pull, is_tuple[0], width, literals)


def compile_xla(
    f: Callable[..., Any], primals: Primals, options: Options, count: Callable[[], None]
) -> Executables:
    """Compile a primal for the shapes of these primals; ``count`` is called at every compilation."""
    import jax

    def compiled(function: Callable[..., Any], *args: Any) -> Any:
        count()
        with jax.enable_x64(True):
            return jax.jit(function).lower(*args).compile(compiler_options=XLA_OPTIONS)

    with jax.enable_x64(True), _explained(primals):
        dims = [*(d for a in primals.values() for d in a.shape), *options.sizes]
        shapes, settings = _filled(primals, options, dims)
        primal, vjp, is_tuple = _functions(f, primals, settings)
        ys = jax.eval_shape(primal, shapes)
        forward = compiled(primal, shapes)
    lazily: list[Any] = []

    def cotangents(arrays: Sequence[Any], deltas: Sequence[Any]) -> list[Any]:
        found: list[Any] = vjp(arrays)[1](list(deltas))[0]
        return found

    def pull(arrays: Sequence[Array], deltas: Sequence[Array]) -> Any:
        if not lazily:
            lazily.append(compiled(cotangents, shapes, _deltas(ys)))
        with jax.enable_x64(True):
            return _owned(lazily[0](list(arrays), list(deltas)))

    def run(arrays: Sequence[Array]) -> Any:
        with jax.enable_x64(True):
            return _owned(forward(list(arrays)))

    return Executables(run, pull, is_tuple[0])


def _owned(tree: Any) -> Any:
    if isinstance(tree, list | tuple):
        return type(tree)(map(_owned, tree))
    return np.array(tree)


def _functions(
    f: Callable[..., Any], primals: Primals, options: Mapping[str, Any]
) -> tuple[Callable[..., Any], Callable[..., Any], list[bool]]:
    """Return the primal and its VJP on lists of arrays, and a list that learns whether f returns a tuple."""
    import jax
    import jax.numpy as jnp

    moving = [is_differentiable(a) for a in primals.values()]
    is_tuple: list[bool] = []
    configured = partial(f, **options) if options else f

    def primal(arrays: Sequence[Any]) -> list[Any]:
        y = called(configured, dict(zip(primals, arrays, strict=True)))
        is_tuple[:] = [isinstance(y, tuple | list)]
        return [jnp.asarray(part) for part in outputs(y)]

    def vjp(arrays: Sequence[Any]) -> tuple[list[Any], Any]:
        def of_moving(some: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            rest = iter(some)
            ys = primal([next(rest) if moves else a for a, moves in zip(arrays, moving, strict=True)])
            return [y for y in ys if jnp.issubdtype(y.dtype, jnp.inexact)], ys

        _, pull, ys = jax.vjp(of_moving, [a for a, moves in zip(arrays, moving, strict=True) if moves], has_aux=True)
        return ys, pull

    return primal, vjp, is_tuple


def _symbols(pattern: Pattern) -> dict[str, Any]:
    """Return JAX's symbolic dimensions by the names that a pattern gives them."""
    import jax

    names = list(dict.fromkeys(entry for entry in pattern if is_symbol(entry)))
    return dict(zip(names, jax.export.symbolic_shape(",".join(names)) if names else (), strict=True))


def _filled(primals: Primals, options: Options, dims: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the primals' shapes in JAX's terms and the options, with these dimensions and integers in them."""
    import jax

    rest = iter(dims)
    shapes = [jax.ShapeDtypeStruct(tuple(next(rest) for _ in a.shape), a.dtype) for a in primals.values()]
    return shapes, options.filled(rest)


def _deltas(ys: Sequence[Any]) -> list[Any]:
    import jax.numpy as jnp

    return [y for y in ys if jnp.issubdtype(y.dtype, jnp.inexact)]


@contextmanager
def _explained(primals: Mapping[str, Array]) -> Iterator[None]:
    """Say on which primals a reference failed, and how to write a branch."""
    import jax

    shapes = ", ".join(f"{name}: {a.dtype}{list(a.shape)}" for name, a in primals.items())
    try:
        yield
    except jax.errors.ConcretizationTypeError as error:
        raise TypeError(
            f"the JAX reference makes a Python number or branch of a value of its primals ({shapes}).\n"
            f"Fix:    use jnp.where, jax.lax.cond or jax.lax.scan, or close over what is fixed\n{error}"
        ) from error
    except Exception as error:
        error.add_note(f"while tracing the JAX reference on {shapes}")
        raise
