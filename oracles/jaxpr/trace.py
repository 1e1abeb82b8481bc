"""Derive with JAX: trace a primal and its VJP for a pattern of dimensions, or compile them for one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from oracles.jaxpr.dimensions import Example, decided_by
from oracles.jaxpr.options import Options
from oracles.jaxpr.patterns import TRACED, Pattern, owners
from oracles.rule import Array, Primals, as_tuple, call_by_name, is_differentiable

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
    with jax.enable_x64(True), _explained(primals), decided_by(example), _inlined():
        entries, given = pattern[: len(pattern) - len(options.floats)], pattern[len(pattern) - len(options.floats) :]
        dims = iter([eval(entry, dict(symbols)) if isinstance(entry, str) else entry for entry in entries])
        shapes = [jax.ShapeDtypeStruct(tuple(next(dims) for _ in a.shape), a.dtype) for a in primals.values()]
        sizes = [next(dims) for _ in options.sizes]
        floats = [
            jax.ShapeDtypeStruct((next(dims),) if isinstance(value, tuple) else (), np.float64, weak_type=True)
            for value in options.floats
        ]
        is_tuple: list[bool] = []
        kept: list[Any] = []

        def forward(arrays: Sequence[Any], traced: Sequence[Any]) -> Any:
            known = (t if e == TRACED else e for t, e in zip(traced, given, strict=True))
            ys, pull = _functions(f, primals, options.filled(iter(sizes), known), is_tuple)[1](arrays)
            leaves, structure = jax.tree.flatten(pull)
            kept[:] = [structure, len(ys)]
            return [*ys, *leaves]

        closed, results = jax.make_jaxpr(forward, return_shape=True)(shapes, floats)
        structure, width = kept
        pull = jax.make_jaxpr(lambda residuals, deltas: jax.tree.unflatten(structure, residuals)(deltas)[0])(
            results[width:], _deltas(results[:width])
        )
    literals = {i: atom.val for i, atom in enumerate(closed.jaxpr.outvars[width:]) if hasattr(atom, "val")}
    return Trace(closed, pull, is_tuple[0], width, literals)


def compile_xla(
    f: Callable[..., Any], primals: Primals, options: Mapping[str, Any], count: Callable[[], None]
) -> Executables:
    """Compile a primal for the shapes of these primals; ``count`` is called at every compilation."""
    import jax

    def compiled(function: Callable[..., Any], *args: Any) -> Any:
        count()
        with jax.enable_x64(True):
            return jax.jit(function).lower(*args).compile(compiler_options=XLA_OPTIONS)

    with jax.enable_x64(True), _explained(primals):
        is_tuple: list[bool] = []
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in primals.values()]
        primal, vjp = _functions(f, primals, options, is_tuple)
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
    f: Callable[..., Any], primals: Primals, options: Mapping[str, Any], is_tuple: list[bool]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the primal and its VJP on lists of arrays; ``is_tuple`` learns whether f returns a tuple."""
    import jax
    import jax.numpy as jnp

    moving = [is_differentiable(a) for a in primals.values()]
    configured = partial(f, **options) if options else f

    def primal(arrays: Sequence[Any]) -> list[Any]:
        y = call_by_name(configured, dict(zip(primals, arrays, strict=True)))
        is_tuple[:] = [isinstance(y, tuple | list)]
        return [jnp.asarray(part) for part in as_tuple(y)]

    def vjp(arrays: Sequence[Any]) -> tuple[list[Any], Any]:
        def of_moving(some: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            rest = iter(some)
            ys = primal([next(rest) if moves else a for a, moves in zip(arrays, moving, strict=True)])
            return [y for y in ys if jnp.issubdtype(y.dtype, jnp.inexact)], ys

        def tangents(directions: Sequence[Any]) -> list[Any]:
            _, found, ys[:] = jax.jvp(of_moving, (some,), (directions,), has_aux=True)
            return list(found)

        some, ys = [a for a, moves in zip(arrays, moving, strict=True) if moves], list[Any]()
        pull = jax.linear_transpose(tangents, some)  # what jax.vjp is, in half its time
        return ys, pull

    return primal, vjp


def _symbols(pattern: Pattern) -> dict[str, Any]:
    """Return JAX's symbolic dimensions by the names that a pattern gives them."""
    import jax

    names = [name for name in owners(pattern) if name]
    return dict(zip(names, jax.export.symbolic_shape(",".join(names)) if names else (), strict=True))


def _deltas(ys: Sequence[Any]) -> list[Any]:
    import jax.numpy as jnp

    return [y for y in ys if jnp.issubdtype(y.dtype, jnp.inexact)]


def is_about_values(error: BaseException) -> bool:
    """Return whether a trace failed because a number or a branch was made of a traced value."""
    import jax

    return isinstance(error, jax.errors.ConcretizationTypeError) or (
        error.__cause__ is not None and is_about_values(error.__cause__)
    )


class _Enabled:
    """JAX's configuration as its loops are to see it: they stay loops where calls are inlined."""

    disable_jit = SimpleNamespace(value=False)

    def __getattr__(self, name: str) -> Any:
        from jax._src import config

        return getattr(config, name)


@contextmanager
def _inlined() -> Iterator[None]:
    """Trace through ``jax.jit``, of which jax.numpy is full: each would be a trace, a derivative and a call more."""
    import jax
    from jax._src import config
    from jax._src.lax.control_flow import loops

    loops.config = _Enabled()
    try:
        with jax.disable_jit():
            yield
    finally:
        loops.config = config


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
