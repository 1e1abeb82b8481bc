"""The JAX oracle: a primal written in JAX, differentiated by JAX, evaluated by NumPy or XLA.

Each shape is traced once, through public interfaces of JAX alone, and `oracles.perturbation.jaxpr` evaluates the
trace. That takes some milliseconds for each new shape, where XLA takes some hundred. Floating options are inputs of
the trace, so one trace serves all their values. What NumPy cannot evaluate goes to XLA.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

import numpy as np

from oracles.lazy_modules import JaxArray
from oracles.outputs import AUXILIARY, DETACHED, Outputs, form_of, like, taken_apart
from oracles.perturbation.jaxpr import Program
from oracles.perturbation.jaxpr_reading import COTANGENT, UnsupportedPrimitive, carrying, contains
from oracles.perturbation.random_signs import perturber
from oracles.rule import (
    Array,
    Cotangents,
    Derived,
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
    is_floating,
)
from oracles.signatures import call_by_name
from oracles.structure import Trees, auxiliary
from oracles.user_code import Raised, attempt

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

# ``f(**primals, **options)``: an array of JAX, or a tuple of them.
Reference: TypeAlias = Callable[..., JaxArray]
Options: TypeAlias = Mapping[str, Hashable]
P = ParamSpec("P")
T = TypeVar("T")

KEPT = 512  # shapes of one reference; of more, those used least recently are forgotten


def jax_vjp(
    f: Reference,
    *,
    name: str = "jax",
    through: str = "numpy",
    options: Options | None = None,
    has_aux: bool = False,
) -> Rule:
    """Make a Rule of a primal written in JAX. Its derivative is JAX's own.

    Args:
        f: ``f(**primals, **options)`` returns an array or a tree of arrays. It must be traceable: what depends on
            the values of its primals is written with ``jnp.where`` or ``jax.lax.cond``.
        name: what reports call the oracle.
        through: "numpy" traces each shape and evaluates the trace with NumPy, "xla" compiles each shape.
        options: configuration; a trace for other values of its floats serves here too.
        has_aux: whether ``f`` returns ``(y, aux)``, of which aux carries no gradient and is compared as values.

    The arithmetic is that of the primals' dtypes (JAX's 64-bit mode is entered locally), and results are
    fresh arrays. Of several outputs, one that ``jax.lax.stop_gradient`` detaches is compared as a value.
    ``rule.evaluate`` counts its ``traces`` and ``compilations``.

    Raises:
        ValueError: for another ``through``.
    """
    if through not in ("numpy", "xla"):
        raise ValueError(f'through: expected "numpy" or "xla", got {through!r}')
    return _jax_rule(auxiliary(f, name) if has_aux else f, options or {}, name, through == "xla", Trees())


def _jax_rule(f: Reference, options: Options, name: str, through_xla: bool, trees: Trees) -> Rule:
    """Make the Rule of `jax_vjp`, over the leaves of trees."""
    rule = _rule(_Traces(trees.calling(f) if trees.roots else f), options, name, through_xla)
    structured = Structured(rule.evaluate, partial(_jax_rule, f, options, name, through_xla))
    return replace(rule, structured=structured)


def jax_family(f: Reference) -> Callable[[Options], Rule]:
    """Return the function of options that makes Rules of a primal, as `jax_vjp` does. They share their traces."""
    traces = _Traces(f)
    return lambda options: _rule(traces, options, "jax", False)


def _rule(traces: _Traces, options: Options, name: str, through_xla: bool) -> Rule:
    oracle = _Oracle(traces, options, name, through_xla)
    evaluate_perturbed = None if through_xla else oracle.evaluate_perturbed

    @cache  # what XLA has compiled for a derivative is kept with it
    def derivative(function: Callable[..., Any], *names: tuple[str, ...]) -> Rule:
        return _rule(traces.derived(function, *names), options, name, through_xla)

    def tangent(names: Mapping[str, str]) -> Rule:
        return derivative(_pushed_forward, *zip(*names.items(), strict=True))

    derived = Derived(oracle, partial(derivative, _pulled_back), tangent)
    return Rule(oracle, name, evaluate_perturbed, _configured(traces.f, options), Runtime.JAX, derived=derived)


def _pulled_back(f: Reference, wrt: tuple[str, ...], deltas: tuple[str, ...], /, **given: Any) -> tuple[JaxArray, ...]:
    """Return the cotangents of some primals, as a function of the primals and of the outputs' cotangents."""
    import jax

    def of_wrt(moving: Mapping[str, JaxArray]) -> list[JaxArray]:
        return list(map(jax.numpy.asarray, as_tuple(taken_apart(call_by_name(f, {**rest, **moving})))))

    rest = {n: a for n, a in given.items() if n not in deltas}
    ys, pull = jax.vjp(of_wrt, {n: given[n] for n in wrt})
    seeds = [given[n] if _moves(y) else np.zeros(y.shape, jax.dtypes.float0) for n, y in zip(deltas, ys, strict=True)]
    (cotangents,) = pull(seeds)
    return tuple(cotangents[n] for n in wrt)


def _pushed_forward(
    f: Reference, names: tuple[str, ...], tangents: tuple[str, ...], /, **given: Any
) -> tuple[JaxArray, ...]:
    """Return the floating outputs and their tangents, as a function of the primals and of their tangents."""
    import jax

    def of_moving(moving: Mapping[str, JaxArray]) -> list[JaxArray]:
        ys = map(jax.numpy.asarray, as_tuple(taken_apart(call_by_name(f, {**rest, **moving}))))
        return [y for y in ys if _moves(y)]

    rest = {n: a for n, a in given.items() if n not in tangents}
    along = {n: given[t] for n, t in zip(names, tangents, strict=True)}
    ys, pushed = jax.jvp(of_moving, ({n: given[n] for n in names},), (along,))
    return (*ys, *pushed)


def _moves(y: JaxArray) -> bool:
    import jax

    return bool(jax.numpy.issubdtype(y.dtype, jax.numpy.inexact))


def _configured(f: Reference, options: Mapping[str, object]) -> Reference:
    return partial(f, **options) if options else f


class _Oracle:
    """Evaluates one primal and its VJP. Called with primals it is the Rule's ``evaluate``.

    Attributes:
        traces, compilations: how many its evaluations needed.
    """

    def __init__(self, traces: _Traces, options: Options, name: str, through_xla: bool) -> None:
        self.name, self.through_xla = name, through_xla
        self.traces = self.compilations = 0
        self._traces, self._options = traces, _Options(options)
        self._executables: OrderedDict[Hashable, Executables] = OrderedDict()

    def __call__(self, **primals: Array) -> tuple[Output, Pullback]:
        trace = None if self.through_xla else self._trace(primals)
        if not isinstance(trace, Trace):
            return self._evaluate_in_xla(primals)
        # A fault in here says nothing about the subject, and JAX may do without. What the reference raises, it raises
        # there again.
        arrays = (*primals.values(), *trace.floats(self._options))
        forward = attempt(lambda: _silently(trace.program.forward, arrays))
        if isinstance(forward, Raised):
            return self._evaluate_in_xla(primals)
        ys, memory = forward
        shapes, dtypes = [y.shape for y in ys], [y.dtype for y in ys]

        def pullback(delta: Output) -> Cotangents:
            deltas = _checked(delta, shapes, dtypes, self.name)
            cotangents = attempt(lambda: _silently(trace.program.pull, memory, deltas))
            if isinstance(cotangents, Raised):
                return self._evaluate_in_xla(primals)[1](delta)
            return _named(primals, cotangents)

        return like(trace.form, ys), pullback

    def evaluate_perturbed(
        self, primals: Primals, delta: Output, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        """Evaluate outputs and cotangents with every operand of every rounding operation perturbed.

        Raises:
            NotPerturbable: if the program runs in XLA, or its evaluation here fails.
            ReferenceFailed: if the reference raises.
        """
        trace = attempt(lambda: self._trace(primals))
        if isinstance(trace, Raised):
            error = trace.error
            raise ReferenceFailed(f"{self.name}: the reference raised {type(error).__name__}: {error}") from error
        if isinstance(trace, Unsupported):
            raise NotPerturbable(f"{self.name}: {trace.reason} in XLA, where single operations cannot be perturbed")
        program, arrays = trace.program, (*primals.values(), *trace.floats(self._options))
        deltas = [np.asarray(d) for d, moves in zip(as_tuple(delta), program.moves, strict=True) if moves]
        perturb = perturber(perturbation)
        results = attempt(lambda: _silently(program.perturbed, arrays, deltas, perturb, perturbation.forward))
        if isinstance(results, Raised):  # the judge's own fault, or the reference's: neither is the subject's
            error = results.error
            raise NotPerturbable(f"{self.name}: its evaluation in NumPy raised {type(error).__name__}") from error
        ys, cotangents = results
        return tuple(ys), _named(primals, cotangents)

    def _trace(self, primals: Primals) -> Trace | Unsupported:
        trace, is_new = self._traces.get(self._options, primals)
        self.traces += is_new
        return trace

    def _evaluate_in_xla(self, primals: Primals) -> tuple[Output, Pullback]:
        key = _signature(primals)
        if key not in self._executables:
            f = _configured(self._traces.f, self._options.given)
            self._executables[key] = compile_xla(f, primals, self._count_compilation)
            if len(self._executables) > KEPT:
                self._executables.popitem(last=False)
        executables, arrays = self._executables[key], tuple(primals.values())
        ys = executables.forward(arrays)
        shapes, dtypes = [y.shape for y in ys], [y.dtype for y in ys]

        def pullback(delta: Output) -> Cotangents:
            return _named(primals, executables.pull(arrays, _checked(delta, shapes, dtypes, self.name)))

        return like(executables.form, ys), pullback

    def _count_compilation(self) -> None:
        self.compilations += 1


def _silently(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that meets poles and infinities without warnings."""
    with np.errstate(all="ignore"):
        return function(*args, **kwargs)


class _Options:
    """A reference's options, the floating ones set apart.

    Attributes:
        given: all of them, by name.
        floats: the floats and tuples of floats among them, by name, as arrays.
        form: a key that is the same for other values of the floats.
        key: a key that is not.
    """

    def __init__(self, given: Options) -> None:
        self.given = given
        self.floats = {name: np.asarray(value) for name, value in given.items() if _is_floating(value)}
        self.form = tuple((n, self.floats[n].shape if n in self.floats else _typed(v)) for n, v in given.items())
        self.key = tuple((n, _typed(v)) for n, v in given.items())


def _is_floating(option: Hashable) -> bool:
    parts = option if isinstance(option, tuple) and option else (option,)
    return all(type(part) is float for part in parts)


def _typed(option: Hashable) -> Hashable:
    """Return a key that tells 1, 1.0 and True apart, and 0.0 from −0.0."""
    if isinstance(option, tuple):
        return tuple(map(_typed, option))
    return type(option), repr(option) if isinstance(option, float) else option


class Trace(NamedTuple):
    """What evaluates primals of certain shapes.

    Attributes:
        program: in NumPy.
        form: the structure of what the reference returns, see `oracles.outputs.like`.
        takes_floats: whether the program takes the floating options, or knows their values.
    """

    program: Program
    form: Any
    takes_floats: bool

    def floats(self, options: _Options) -> Sequence[Array]:
        """Return the options that the program takes."""
        return tuple(options.floats.values()) if self.takes_floats else ()


class Unsupported(NamedTuple):
    """Takes the place of a trace that NumPy cannot evaluate here; says what runs elsewhere."""

    reason: str


class _Traces:
    """The traces of one reference, by shapes, dtypes and options.

    Attributes:
        f: the reference.
    """

    def __init__(self, f: Reference) -> None:
        self.f = f
        self._traces: OrderedDict[Hashable, Trace | Unsupported] = OrderedDict()
        # Whether the reference needs the values of floating options in Python, to branch on them.
        self._needs_floats = False
        # Whether calls of jax.jit are traced through, of which jax.numpy is full: each would be a trace and a
        # derivative of its own for each shape. Without jax.jit a loop is unrolled, so references with loops keep it.
        self._inlines: bool | None = None
        self._derived: dict[Hashable, _Traces] = {}

    def derived(self, function: Callable[..., Any], *names: tuple[str, ...]) -> _Traces:
        """Return the traces of a function that is made of the reference and of names; those of before, if there are."""
        key = (function, names)
        if key not in self._derived:
            self._derived[key] = _Traces(partial(function, self.f, *names))
        return self._derived[key]

    def get(self, options: _Options, primals: Primals) -> tuple[Trace | Unsupported, bool]:
        """Return the trace for primals like these, and whether it is new.

        Raises:
            TypeError: if the reference branches in Python on the value of a primal.
            Exception: whatever else the reference raises on these shapes, with a note of the shapes.
        """
        signature, takes_floats = _signature(primals), bool(options.floats) and not self._needs_floats
        key = (options.form if takes_floats else options.key, signature, takes_floats)
        if (known := self._traces.get(key)) is not None:
            self._traces.move_to_end(key)
            return known, False
        trace = self._make_for_all_floats(options, primals) if takes_floats else None
        if trace is None:
            trace = self._make(options, primals, takes_floats=False)
            if takes_floats:
                self._needs_floats, key = True, (options.key, signature, False)
        self._traces[key] = trace
        if len(self._traces) > KEPT:
            self._traces.popitem(last=False)
        return trace, True

    def _make_for_all_floats(self, options: _Options, primals: Primals) -> Trace | Unsupported | None:
        """Trace with floating options as inputs; None where the reference needs their values."""
        try:
            trace = self._make(options, primals, takes_floats=True)
        except Exception:  # whatever it is, the reference raises it again where it is not due to the traced options
            return None
        # A callback may close over an option, whose value only this trace would lack.
        return None if isinstance(trace, Trace) and trace.program.calls_back else trace

    def _make(self, options: _Options, primals: Primals, takes_floats: bool) -> Trace | Unsupported:
        import jax

        if self._inlines is None:
            # Ask the primal alone first, so that a trace does not depend on what was traced before.
            self._inlines = not contains(self._primal(options, primals), "scan", "while")
        if self._inlines:
            try:
                return self._trace(options, primals, takes_floats, jax.disable_jit())
            except Exception:  # whatever it is, the reference raises it again below unless the missing jit is why
                pass
        trace = self._trace(options, primals, takes_floats, nullcontext())
        self._inlines = False
        return trace

    def _primal(self, options: _Options, primals: Primals) -> Jaxpr:
        import jax

        primal, _ = _functions(_configured(self.f, options.given), primals, [])
        with jax.enable_x64(True), _explained(primals):
            return jax.make_jaxpr(primal)(_shapes(primals)).jaxpr

    def _trace(
        self, options: _Options, primals: Primals, takes_floats: bool, mode: AbstractContextManager[None]
    ) -> Trace | Unsupported:
        """Trace the primal and its cotangents in one jaxpr; a primitive of ours stands for the outputs' cotangents."""
        import jax

        form: list[Any] = []
        n_outputs: list[int] = []
        names = list(options.floats) if takes_floats else []

        def evaluate(arrays: Sequence[JaxArray], floats: Sequence[JaxArray]) -> list[JaxArray]:
            f = _configured(self.f, {**options.given, **dict(zip(names, floats, strict=True))})
            ys, pull = _functions(f, primals, form)[1](arrays)
            n_outputs[:] = [len(ys)]
            return [*ys, *pull([_cotangent_primitive().bind(y) for y in _differentiable(ys)])[0]]

        with jax.enable_x64(True), _explained(primals), mode:
            floats = [jax.ShapeDtypeStruct(options.floats[n].shape, np.float64, weak_type=True) for n in names]
            closed = jax.make_jaxpr(evaluate)(_shapes(primals), floats)
            detaching = form[0] if n_outputs[0] == 1 else _with_detached(form[0], self._primal(options, primals))
        try:
            return Trace(Program(closed, n_outputs[0], len(names)), detaching, takes_floats)
        except UnsupportedPrimitive as error:
            return Unsupported(f"{str(error)!r} runs")
        except Exception as error:  # a fault of the translation, which JAX does without
            return Unsupported(f"its translation raised {type(error).__name__}: {error}. It runs")


@cache
def _cotangent_primitive() -> Any:
    from jax.extend.core import Primitive

    primitive = Primitive(COTANGENT)
    primitive.def_abstract_eval(lambda y: y)
    return primitive


def _signature(primals: Primals) -> Hashable:
    return tuple((name, a.shape, a.dtype) for name, a in primals.items())


def _shapes(primals: Primals) -> list[JaxArray]:
    import jax

    return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in primals.values()]


def _functions(
    f: Reference, primals: Primals, form: list[Any]
) -> tuple[Callable[..., list[JaxArray]], Callable[..., tuple[list[JaxArray], Callable[..., Any]]]]:
    """Return the primal and its VJP on lists of arrays; ``form`` is set to the structure that f returns."""
    import jax
    import jax.numpy as jnp

    moving = [is_differentiable(a) for a in primals.values()]

    def primal(arrays: Sequence[JaxArray]) -> list[JaxArray]:
        y = taken_apart(call_by_name(f, dict(zip(primals, arrays, strict=True))))
        parts = [jnp.asarray(part) for part in as_tuple(y)]
        form[:] = [form_of(y)]
        if isinstance(y, Outputs):
            parts = [jax.lax.stop_gradient(p) if y.without.get(i) == AUXILIARY else p for i, p in enumerate(parts)]
        return parts

    def vjp(arrays: Sequence[JaxArray]) -> tuple[list[JaxArray], Callable[..., Any]]:
        def of_moving(some: Sequence[JaxArray]) -> tuple[list[JaxArray], list[JaxArray]]:
            rest = iter(some)
            ys = primal([next(rest) if moves else a for a, moves in zip(arrays, moving, strict=True)])
            return _differentiable(ys), ys

        def tangents(directions: Sequence[JaxArray]) -> list[JaxArray]:
            _, results, ys[:] = jax.jvp(of_moving, (some,), (directions,), has_aux=True)
            return list(results)

        some, ys = [a for a, moves in zip(arrays, moving, strict=True) if moves], list[JaxArray]()
        pull = jax.linear_transpose(tangents, some)  # what jax.vjp is, in about two thirds of its time
        return ys, pull

    return primal, vjp


def _differentiable(ys: Sequence[JaxArray]) -> list[JaxArray]:
    import jax.numpy as jnp

    return [y for y in ys if jnp.issubdtype(y.dtype, jnp.inexact)]


def _with_detached(form: Any, primal: Jaxpr) -> Any:
    """Return the form of several outputs with those that `jax.lax.stop_gradient` detaches, unless all floats are."""
    carry = carrying(primal)
    floats = [i for i, v in enumerate(primal.outvars) if is_floating(np.dtype(v.aval.dtype))]
    without = {i: DETACHED for i in floats if not carry[i]}
    if not without or len(without) == len(floats):
        return form
    return form.but_without(without) if isinstance(form, Outputs) else Outputs(form, (), without)


class Executables(NamedTuple):
    """The primal and its cotangents through XLA; the latter are compiled on demand."""

    forward: Callable[[Sequence[Array]], list[Array]]
    pull: Callable[[Sequence[Array], Sequence[Array]], list[Array]]
    form: Any


def compile_xla(f: Reference, primals: Primals, count: Callable[[], None]) -> Executables:
    """Compile a primal for the shapes of these primals; ``count`` is called at every compilation."""
    import jax

    def compiled(function: Callable[..., Any], *args: Sequence[JaxArray]) -> Callable[..., Sequence[JaxArray]]:
        count()
        with jax.enable_x64(True):
            executable: Callable[..., Sequence[JaxArray]] = jax.jit(function).lower(*args).compile()
        return executable

    def run(executable: Callable[..., Sequence[JaxArray]], *args: Sequence[Array]) -> list[Array]:
        with jax.enable_x64(True):
            return [np.array(part) for part in executable(*map(list, args))]

    form: list[Any] = []
    primal, vjp = _functions(f, primals, form)

    def cotangents(arrays: Sequence[JaxArray], deltas: Sequence[JaxArray]) -> list[JaxArray]:
        return list(vjp(arrays)[1](list(deltas))[0])

    with jax.enable_x64(True), _explained(primals):
        shapes = _shapes(primals)
        ys = jax.eval_shape(primal, shapes)
        detaching = form[0] if len(ys) == 1 else _with_detached(form[0], jax.make_jaxpr(primal)(shapes).jaxpr)
        forward = compiled(primal, shapes)
    compiled_pullback = cache(lambda: compiled(cotangents, shapes, _differentiable(ys)))
    return Executables(
        partial(run, forward), lambda arrays, deltas: run(compiled_pullback(), arrays, deltas), detaching
    )


@contextmanager
def _explained(primals: Primals) -> Iterator[None]:
    """Name the primals that a reference failed on, and how to write a branch."""
    import jax

    shapes = ", ".join(f"{name}: {a.dtype}{list(a.shape)}" for name, a in primals.items())
    try:
        yield
    except jax.errors.ConcretizationTypeError as error:
        raise TypeError(
            f"the JAX reference makes a Python number or branch of a value of its primals ({shapes}).\n"
            f"Fix:    use jnp.where, jax.lax.cond or jax.lax.scan, or close over what is fixed\n{error}"
        ) from error
    except Exception as error:  # a reference may raise anything: it gets a note, and goes on
        error.add_note(f"while tracing the JAX reference on {shapes}")
        raise


def _named(primals: Primals, cotangents: Sequence[Array]) -> Cotangents:
    names = [name for name, a in primals.items() if is_differentiable(a)]
    return dict(zip(names, cotangents, strict=True))


def _checked(
    delta: Output, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any]], name: str
) -> list[Array]:
    """Return the cotangents of the floating outputs, in the outputs' dtypes.

    Raises:
        ValueError: if their shapes are not those of the outputs.
    """
    deltas = as_tuple(delta)
    if (actual := [np.shape(d) for d in deltas]) != shapes:
        raise ValueError(f"{name}: delta: expected shapes {shapes} like the output, got {actual}")
    return [np.asarray(d, dtype) for d, dtype in zip(deltas, dtypes, strict=True) if is_floating(dtype)]
