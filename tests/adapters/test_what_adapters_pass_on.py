"""Adapters pass on any name, shape and dtype; what they cannot pass on is invalid input, never a verdict."""

import functools

import ml_dtypes
import numpy as np
import pytest
import torch

import oracles
from oracles import InvalidInput, Unimplemented

RNG = np.random.default_rng(0)


class Squares(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, delta):
        return 2 * ctx.saved_tensors[0] * delta


class Module(torch.nn.Module):
    def forward(self, x):
        return Squares.apply(x)


class Stateful:
    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, delta):
        return (delta * (self.x + self.x)).astype(self.x.dtype)


class Node:
    """A number with its derivative by a single leaf: enough of an engine for x²."""

    def __init__(self, data, parents=()):
        self.data, self.parents, self.grad = data, parents, 0.0

    def __mul__(self, other):
        if not isinstance(other, Node):
            return Node(self.data * other, ((self, other),))
        return Node(self.data * other.data, ((self, other.data), (other, self.data)))

    def __add__(self, other):
        return Node(self.data + other.data, ((self, 1.0), (other, 1.0)))

    def backward(self, weight=1.0):
        self.grad += weight
        for parent, slope in self.parents:
            parent.backward(weight * slope)


def squared_by_jax():
    import jax

    f = jax.custom_vjp(lambda x: x * x)
    f.defvjp(lambda x: (x * x, x), lambda x, delta: (2 * x * delta,))
    return oracles.jax_function(f)


TWICE = {"numpy": lambda x, d: (d * (x + x)).astype(x.dtype), "torch": lambda x, d: 2 * x * d}
ADAPTERS = {
    "manual": lambda: oracles.manual(lambda x: (x * x, x), lambda x, d: {"x": TWICE["numpy"](x, d)}),
    "manual of tensors": lambda: oracles.manual(
        lambda x: (x * x, x), lambda x, d: {"x": TWICE["torch"](x, d)}, arrays="torch"
    ),
    "elementwise": lambda: oracles.elementwise(lambda x: x * x, lambda x: x + x),
    "stateful": lambda: oracles.stateful(Stateful),
    "torch_function": lambda: oracles.torch_function(Squares),
    "torch_module": lambda: oracles.torch_module(Module),
    "jax_function": squared_by_jax,
    "scalar_graph": lambda: oracles.scalar_graph(lambda x: x * x, Node),
}
HOLD_NO_LONGDOUBLE = ("manual of tensors", "torch_function", "torch_module", "jax_function")
SQUARE = oracles.torch_autograd(lambda x: x * x)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3, 2)], ids=str)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_shapes(adapter, shape):
    result = oracles.check(ADAPTERS[adapter](), {"x": np.array(RNG.standard_normal(shape))}, [SQUARE])
    assert not result.refuses
    assert "x" not in result.not_claimed


@pytest.mark.parametrize("dtype", ["float16", "float32", ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_dtypes(adapter, dtype):
    assert oracles.check(ADAPTERS[adapter](), {"x": RNG.standard_normal(4).astype(dtype)}, [SQUARE]).verdict == "agrees"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_complex_primals(adapter):
    """2 x δ is right in JAX's convention, which its custom_vjp has; elsewhere it lacks a conjugate."""
    x = {"x": np.array([1 + 2j, -0.5j, 3.0])}
    if adapter in ("elementwise", "scalar_graph"):
        with pytest.raises(InvalidInput, match="primals"):
            oracles.check(ADAPTERS[adapter](), x, [SQUARE])
    elif adapter == "jax_function":
        assert oracles.check(ADAPTERS[adapter](), x, [SQUARE]).verdict == "agrees"
    else:
        with pytest.raises(oracles.Disagreement, match="conjugate=True"):
            oracles.check(ADAPTERS[adapter](), x, [SQUARE])


@pytest.mark.parametrize("adapter", HOLD_NO_LONGDOUBLE)
def test_dtypes_that_a_framework_lacks_are_invalid_input(adapter):
    with pytest.raises(InvalidInput, match=r"has no dtype (.|\n)*Fix: .*astype"):
        oracles.check(ADAPTERS[adapter](), {"x": RNG.standard_normal(4).astype(np.longdouble)}, [SQUARE])


NAMES = ["a b", "x'] = 1; raise SystemExit #", 'quote"', "{brace}", "new\nline", "back\\slash", "δ", "", "class"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_data(name):
    """Every adapter takes a primal of any name; the one parameter of the subject has another."""
    for adapter, make in ADAPTERS.items():
        if adapter == "manual":
            subject = oracles.manual(lambda **p: (p[name] ** 2, p[name]), lambda x, d: {name: 2 * x * d})
        elif adapter == "manual of tensors":
            subject = oracles.manual(lambda x: (x * x, x), lambda x, d: (2 * x * d,), arrays="torch")
        else:
            subject = make()
        reference = oracles.torch_autograd(lambda **p: p[name] ** 2)
        assert not oracles.check(subject, {name: RNG.standard_normal(3)}, [reference]).refuses, adapter


@pytest.mark.parametrize("name", NAMES)
def test_locations_of_any_name(name):
    class Scaled:
        def __init__(self):
            self.params, self.grads = {"factor": np.ones(3)}, {}

        def forward(self, x):
            self.x = x
            return x * self.params["factor"]

        def backward(self, delta):
            self.grads["factor"] = self.x * delta
            return {"x": delta * self.params["factor"]}

    subject = oracles.stateful(Scaled, params={name: "params['factor']"}, grads={name: "grads['factor']"})
    reference = oracles.torch_autograd(lambda **p: p["x"] * p[name])
    at = {"x": RNG.standard_normal(3), name: RNG.standard_normal(3)}
    assert oracles.check(subject, at, [reference]).verdict == "agrees"


@pytest.mark.parametrize("call", ["forward", "backward"])
def test_what_is_not_implemented_is_no_verdict(call):
    def not_implemented(*_):
        raise NotImplementedError("only stride 1")

    functions = {"forward": lambda x: (x * x, x), "backward": lambda x, d: {"x": 2 * x * d}, call: not_implemented}
    with pytest.raises(Unimplemented, match="not implemented: only stride 1") as excinfo:
        oracles.check(oracles.manual(**functions), {"x": np.ones(3)}, [SQUARE])
    assert isinstance(excinfo.value, InvalidInput)
    assert isinstance(excinfo.value, NotImplementedError)
    assert str(excinfo.value.__cause__) == "only stride 1"


def power_of_jax():
    jax = pytest.importorskip("jax")

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def power(n, x, scale=1.0):
        return scale * x**n

    power.defvjp(
        lambda n, x, scale=1.0: (scale * x**n, (x, scale)),
        lambda n, saved, d: (d * saved[1] * n * saved[0] ** (n - 1), (d * saved[0] ** n).sum()),
    )
    return power


def test_arguments_without_a_cotangent_are_bound_not_passed():
    power, at = power_of_jax(), {"x": RNG.standard_normal(3), "scale": np.array(3.0)}
    against = [oracles.torch_autograd(lambda x, scale: scale * x**2)]
    for subject in (
        oracles.jax_function(functools.partial(power, 2)),
        oracles.jax_function(functools.partial(power, n=2)),
        oracles.jax_function(power, options={"n": 2}),
    ):
        assert oracles.check(subject, at, against).verdict == "agrees"
    with pytest.raises(InvalidInput, match=r"no n: nondiff_argnums(.|\n)*functools.partial\(power, n=\.\.\.\)"):
        oracles.check(oracles.jax_function(power), {"n": np.array(2), **at}, [])


def test_functions_of_a_framework_that_lacks_arguments():
    with pytest.raises(InvalidInput, match=r"it needs n(.|\n)*options=\{'n': \.\.\.\}"):
        oracles.check(oracles.jax_function(power_of_jax()), {"x": RNG.standard_normal(3)}, [])


def test_sparse_gradients_and_dtypes_that_numpy_lacks():
    ids = np.array([[0, 2], [2, 1]])

    class Embedding(torch.nn.Module):
        def forward(self, W, ids):
            return torch.nn.functional.embedding(ids, W, sparse=True)

    at = {"W": RNG.standard_normal((4, 3)), "ids": ids}
    against = [oracles.torch_autograd(lambda W, ids: W[ids])]
    assert oracles.check(oracles.torch_module(Embedding), at, against).verdict == "agrees"
    tiny = oracles.manual(lambda x: (x.to(torch.float8_e5m2fnuz), x), lambda x, d: {"x": 2 * x * d}, arrays="torch")
    with pytest.raises(oracles.Disagreement, match="float8"):
        oracles.check(tiny, {"x": np.ones(3)}, [SQUARE])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_passed_on(value):
    seen = []

    def forward(x):
        seen.append(x.copy())
        return x + 1, None

    subject = oracles.manual(forward, lambda _, d: {"x": d})
    subject(x=oracles.backends.arrays.copied(np.array([1.0, value])))
    assert np.array_equal(seen[0], [1.0, value], equal_nan=True)
