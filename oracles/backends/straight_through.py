"""References whose steps are differentiated as the identity: the straight-through estimator (Bengio et al., 2013).

A step is an operation whose derivative is zero where it has one: a rounding, a sign, and whatever a reference computes
by way of integers or truth values, as a one-hot vector of an argmax. Torch references run under a mode that sees each
call of torch; JAX references are traced, and the trace is evaluated equation by equation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from oracles.backends.devices import on_device
from oracles.lazy_modules import JaxArray, LazyModule, Tensor, jax, torch
from oracles.outputs import taken_apart
from oracles.perturbation.jaxpr_primitives import CALLS
from oracles.perturbation.jaxpr_reading import OWN_DERIVATIVES, run_equation
from oracles.rule import Function, Rule, Runtime, as_tuple
from oracles.signatures import call_by_name

if TYPE_CHECKING:
    from oracles.backends import jax_reference, torch_reference
else:  # a reference needs one of them
    jax_reference = LazyModule("oracles.backends.jax_reference")
    torch_reference = LazyModule("oracles.backends.torch_reference")

Value: TypeAlias = Any  # a tensor, a JAX array, or an argument of an operation

# Operations of floats whose derivative is zero, as torch and JAX call them.
STEPS = ("round", "floor", "ceil", "trunc", "fix", "sign")


@dataclass(frozen=True)
class StraightThrough:
    """A reference whose steps are differentiated as the identity.

    Attributes:
        function: the reference.
        runtime: whose it is.
        steps: the names of the steps; by default all whose derivative is zero.
        replaced: the names of the steps that were met when it was evaluated.
    """

    function: Function
    runtime: Runtime
    steps: tuple[str, ...]
    replaced: set[str] = field(default_factory=set, compare=False)

    def __call__(self, **arrays: Value) -> Value:
        """Evaluate the reference: its value is the same."""
        run = _run_torch if self.runtime is Runtime.TORCH else _run_jax
        return run(self, arrays)

    def is_step(self, name: str, x: Value, result: Value, *, discrete: bool = False) -> bool:
        """Return whether an operation on x is a step.

        Args:
            name: its name.
            x: the floats that it takes.
            result: the floats that it gives, or that are made of the integers or truth values that it gives.
            discrete: whether it gives integers or truth values.
        """
        is_step = name in self.steps if self.steps else discrete or name in STEPS
        if not is_step or tuple(x.shape) != tuple(result.shape):
            return False
        self.replaced.add(name)
        return True


def straight_through(oracle: Rule, steps: Sequence[str] = ()) -> Rule:
    """Return an oracle that differentiates the steps of its reference as the identity.

    Args:
        oracle: an oracle with a reference in torch or JAX; another one is returned as it is.
        steps: what torch or JAX call the steps; by default all operations whose derivative is zero.
    """
    f = oracle.reference
    if f is None or isinstance(f, StraightThrough) or oracle.runtime not in (Runtime.TORCH, Runtime.JAX):
        return oracle
    return _with_reference(oracle, StraightThrough(f, oracle.runtime, tuple(steps)))


def without_straight_through(oracle: Rule) -> Rule:
    """Return the oracle that `straight_through` was given, or one like it."""
    f = oracle.reference
    return _with_reference(oracle, f.function) if isinstance(f, StraightThrough) else oracle


@lru_cache(maxsize=64)
def _rule_of(f: Function, runtime: Runtime, name: str) -> Rule:
    """Make the rule of a reference; one is kept, since its traces and recordings belong to it."""
    if runtime is Runtime.TORCH:
        return torch_reference.torch_autograd(f, name=name)
    return jax_reference.jax_vjp(f, name=name)


def _with_reference(oracle: Rule, f: Function) -> Rule:
    rule = _rule_of(f, oracle.runtime, oracle.name)
    return on_device(rule, oracle.device) if oracle.runtime is Runtime.TORCH else replace(rule, device=oracle.device)


class Origin(NamedTuple):
    """Of what integers or truth values were computed.

    Attributes:
        source: the array of floats.
        operation: what made them of it.
        keep: what must live as long as this is known.
    """

    source: Value
    operation: str
    keep: Value = None


def _run_torch(reference: StraightThrough, tensors: Mapping[str, Tensor]) -> Value:
    origins: dict[int, Origin] = {}
    step = _torch_step().apply

    def function(
        mode: object,
        call: Function,
        types: object,
        args: tuple[Value, ...] = (),
        kwargs: Mapping[str, Value] | None = None,
    ) -> Value:
        given = [t for t in _tensors((*args, *(kwargs or {}).values())) if isinstance(t, torch.Tensor)]
        known = [origins[id(t)] for t in given if id(t) in origins]
        name = getattr(call, "__name__", "").strip("_")
        if known and name in ARITHMETIC:  # torch makes floats of truth values inside
            args = tuple(_as_floats(a, origins, reference, step) for a in args)
            return call(*args, **(kwargs or {}))
        result = call(*args, **(kwargs or {}))
        # Without gradients a function states its own; the first argument decides.
        if not torch.is_grad_enabled():
            return result
        floats = [t for t in given if t.requires_grad]
        for part in as_tuple(result):
            if isinstance(part, torch.Tensor) and not (part.is_floating_point() or part.is_complex()):
                origin = Origin(floats[0], name, part) if floats else known[0]._replace(keep=part) if known else None
                if origin:
                    origins[id(part)] = origin
        if not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return result
        if floats:
            return step(floats[0], result.detach()) if reference.is_step(name, floats[0], result) else result
        source = _source(known, result, reference)
        # In the dtype of the floats: float() of truth values would round the cotangent.
        return result if source is None else step(source, result.to(source.dtype))

    # The base class exists only once torch is imported, so the class is made here.
    base = import_module("torch.overrides").TorchFunctionMode
    with type("StraightThroughMode", (base,), {"__torch_function__": function})():
        return call_by_name(reference.function, tensors)


# Operations of which torch takes truth values and floats alike.
ARITHMETIC = frozenset(
    ("add", "sub", "mul", "div", "true_divide", "radd", "rsub", "rmul", "rdiv", "truediv", "rtruediv")
)


def _as_floats(value: Value, origins: Mapping[int, Origin], reference: StraightThrough, step: Function) -> Value:
    """Return what integers or truth values are as floats, with a derivative by the step that made them."""
    origin = origins.get(id(value))
    source = None if origin is None else _source([origin], value, reference)
    return value if source is None else step(source, value.to(source.dtype))


def _source(known: Sequence[Origin], result: Value, reference: StraightThrough) -> Value:
    """Return the floats of which a step made integers or truth values, of which a result was made; ``None`` if none."""
    of_steps = (o.source for o in known if reference.is_step(o.operation, o.source, result, discrete=True))
    return next(of_steps, None)


def _tensors(values: Sequence[Value]) -> Iterator[Value]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _tensors(value)
        else:
            yield value


@lru_cache(maxsize=1)
def _torch_step() -> Any:
    """Return the torch function of (x, value) that is the value, and whose derivative by x is 1."""

    def forward(context: Value, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    def backward(context: Value, delta: Tensor) -> tuple[Tensor | None, ...]:
        return delta, None

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type("StraightThroughStep", (torch.autograd.Function,), methods)


@lru_cache(maxsize=1)
def _jax_step() -> Callable[[JaxArray, JaxArray], JaxArray]:
    """Return the JAX function of (x, value) that is the value, and whose derivative by x is 1."""

    def value_of(x: JaxArray, value: JaxArray) -> JaxArray:
        return value

    step: Any = jax.custom_jvp(value_of)
    # The step again, so that a derivative of the derivative passes through it too.
    step.defjvp(lambda primals, tangents: (step(*primals), tangents[0]))
    result: Callable[[JaxArray, JaxArray], JaxArray] = step
    return result


def _run_jax(reference: StraightThrough, arrays: Mapping[str, JaxArray]) -> Value:
    names = tuple(arrays)

    def flat(*values: JaxArray) -> list[JaxArray]:
        y = taken_apart(call_by_name(reference.function, dict(zip(names, values, strict=True))))
        return [jax.numpy.asarray(part) for part in as_tuple(y)]

    # Calls of jax.jit are equations with names: those of jax.numpy's functions.
    with jax.disable_jit(False):
        closed = jax.make_jaxpr(flat)(*arrays.values())
    known = [Known(a, _is_float(a)) for a in arrays.values()]
    results = _evaluate(reference, closed.jaxpr, [Known(c) for c in closed.consts], known)
    return tuple(k.value for k in results) if len(results) > 1 else results[0].value


class Known(NamedTuple):
    """A value of a trace.

    Attributes:
        value: the array.
        carries: whether it is of floats that depend on the primals.
        origin: of what integers or truth values were computed.
    """

    value: Value
    carries: bool = False
    origin: Origin | None = None


def _is_float(x: Value) -> bool:
    return bool(jax.numpy.issubdtype(jax.numpy.result_type(x), jax.numpy.floating))


def _evaluate(
    reference: StraightThrough, jaxpr: Value, constants: Sequence[Known], inputs: Sequence[Known]
) -> list[Known]:
    """Evaluate a jaxpr, and replace what the steps give."""
    known: dict[Any, Known] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True))

    def read(variable: Value) -> Known:
        return Known(variable.val) if hasattr(variable, "val") else known[variable]

    for equation in jaxpr.eqns:
        operands, primitive = [read(v) for v in equation.invars], equation.primitive.name
        name = str(equation.params.get("name", primitive)) if primitive in CALLS else primitive
        if (
            primitive in CALLS
            and primitive not in OWN_DERIVATIVES
            and not (reference.steps and name in reference.steps)
        ):
            inner = equation.params[CALLS[primitive]]
            consts = [Known(c) for c in getattr(inner, "consts", ())]
            results = _evaluate(reference, getattr(inner, "jaxpr", inner), consts, operands)
        else:
            values = run_equation(equation, [k.value for k in operands])
            values = list(values) if equation.primitive.multiple_results else [values]
            stops = primitive == "stop_gradient"
            results = [Known(v) if stops else _result(reference, name, v, operands) for v in values]
        known.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _result(reference: StraightThrough, name: str, value: JaxArray, operands: Sequence[Known]) -> Known:
    """Return what is known of a result of one operation, which is that of the identity if it is a step."""
    floats = [k.value for k in operands if k.carries]
    origins = [k.origin for k in operands if k.origin is not None]
    if not _is_float(value):
        return Known(value, origin=Origin(floats[0], name) if floats else next(iter(origins), None))
    if floats:
        is_step = reference.is_step(name, floats[0], value)
        return Known(_jax_step()(floats[0], value) if is_step else value, carries=True)
    source = _source(origins, value, reference)
    if source is None:
        return Known(value)
    return Known(_jax_step()(source.astype(value.dtype), value), carries=True)
