"""Functions behind decorators are called by the names of the primals; what cannot be called is invalid input."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pairs import PAIRS

import oracles
from oracles import Disagreement, InvalidInput
from oracles.signatures import call_by_name, call_by_name_or_in_order, signature_of

DENSE = PAIRS["dense"]
AT = DENSE.at()


def traced(f):
    def wrap(*args, **kwargs):
        return f(*args, **kwargs)

    return wrap


def traced_by_position(f):
    def wrap(*args):
        return f(*args)

    return wrap


def traced_with_self(f):
    def wrap(self, *args, **kwargs):
        return f(self, *args, **kwargs)

    return wrap


class Traced:
    def __init__(self, f):
        self.f = f

    def __call__(self, *args, **kwargs):
        return self.f(*args, **kwargs)

    def __get__(self, obj, kind=None):
        return self if obj is None else functools.partial(self, obj)


REGISTRY = []


def registered(f):
    REGISTRY.append(f)  # the closure shows a number, and nothing of what is called
    number = len(REGISTRY) - 1

    def wrap(*args, **kwargs):
        return REGISTRY[number](*args, **kwargs)

    return wrap


DECORATORS = [traced, traced_by_position, Traced, registered, lambda f: traced(Traced(f)), functools.lru_cache]
METHOD_DECORATORS = [traced, traced_by_position, traced_with_self, Traced, registered, lambda f: traced(traced(f))]


def subtract(W, z):
    return z - 2 * W


@pytest.mark.parametrize("decorate", DECORATORS)
@pytest.mark.parametrize("call", [call_by_name, call_by_name_or_in_order])
def test_names_pass_through_decorators(decorate, call):
    assert call(decorate(subtract), {"z": 5, "W": 1}) == 3
    assert call(functools.partial(decorate(subtract), 1), {"z": 5}) == 3


@pytest.mark.parametrize("decorate", DECORATORS)
def test_decorated_functions_of_other_names_are_called_in_order(decorate):
    assert call_by_name_or_in_order(decorate(subtract), {"a": 1, "b": 5}) == 3


def test_variadic_functions_are_called_in_order():
    assert call_by_name(lambda *arrays: arrays[1] - 2 * arrays[0], {"W": 1, "z": 5}) == 3
    assert call_by_name(lambda **arrays: arrays["z"] - 2 * arrays["W"], {"z": 5, "W": 1}) == 3


@pytest.mark.parametrize("decorate", METHOD_DECORATORS)
def test_methods_behind_decorators(decorate):
    class Dense:
        @decorate
        def forward(self, weights, inputs):
            self.cache = inputs, weights
            return inputs @ weights

        def backward(self, delta):
            inputs, weights = self.cache
            return inputs.T @ delta, delta @ weights.T

    at = {"W": AT["W"], "z": AT["z"]}
    subject = oracles.stateful(Dense)
    assert oracles.check(subject, at, [oracles.torch_autograd(lambda z, W: z @ W)]).verdict == "agrees"

    class Named(Dense):
        @decorate
        def forward(self, z, W):
            self.cache = z, W
            return z @ W

        def backward(self, delta):
            return {"W": super().backward(delta)[0], "z": super().backward(delta)[1]}

    assert oracles.check(oracles.stateful(Named), at, [oracles.torch_autograd(lambda z, W: z @ W)]).verdict == "agrees"


@pytest.mark.parametrize("decorate", [traced, traced_by_position, Traced, registered])
def test_pairs_behind_decorators(decorate):
    subject = oracles.manual(decorate(DENSE.forward), decorate(DENSE.backward))
    assert oracles.check(subject, dict(reversed(AT.items())), [DENSE.torch]).verdict == "agrees"


@dataclass
class Scaled:
    """A dataclass that compares by value, and so has no hash."""

    factor: float

    def forward(self, z):
        return self.factor * z, None

    def backward(self, cache, delta):
        return {"z": self.factor * delta}


def test_methods_of_an_object_without_a_hash():
    scaled = Scaled(3.0)
    subject = oracles.manual(scaled.forward, scaled.backward)
    assert oracles.check(subject, {"z": AT["z"]}, [oracles.torch_autograd(lambda z: 3 * z)]).verdict == "agrees"


@pytest.mark.parametrize("decorate", [traced, registered, lambda f: f])
def test_other_numbers_of_arguments_are_invalid_input(decorate):
    class Unary:
        @decorate
        def forward(self, z):
            return z

        def backward(self, delta):
            return delta

    with pytest.raises(InvalidInput, match=r"z, W, b(.|\n)*Fix: (.|\n)*def \w+\(z, W, b\)"):
        oracles.check(oracles.stateful(Unary), AT, [DENSE.torch])
    with pytest.raises(InvalidInput, match=r"z, W, b"):
        oracles.check(oracles.manual(decorate(lambda z: (z, None)), lambda c, d: d), AT, [DENSE.torch])


@pytest.mark.parametrize("decorate", [traced, registered, lambda f: f])
def test_a_type_error_inside_is_the_subjects(decorate):
    def helper(a, b):
        return a

    class Careless:
        @decorate
        def forward(self, z):
            return helper(z)

        def backward(self, delta):
            return delta

    with pytest.raises(Disagreement, match="missing 1 required"):
        oracles.check(oracles.stateful(Careless), {"z": AT["z"]}, [oracles.torch_autograd(lambda z: z)])
    with pytest.raises(Disagreement, match="missing 1 required"):
        oracles.check(oracles.manual(decorate(lambda z: helper(z)), lambda c, d: d), {"z": AT["z"]})


class Square(torch.autograd.Function):
    @staticmethod
    @traced
    def forward(ctx, x, power=2, scale=1.0):
        ctx.save_for_backward(x)
        ctx.power, ctx.scale = power, scale
        return scale * x**power

    @staticmethod
    @traced
    def backward(ctx, delta):
        (x,) = ctx.saved_tensors
        return delta * ctx.scale * ctx.power * x ** (ctx.power - 1), None, None


def test_torch_functions_and_modules_behind_decorators():
    class Module(torch.nn.Module):
        @traced
        def forward(self, inputs):
            return Square.apply(inputs)

    at, against = {"x": AT["z"]}, [oracles.torch_autograd(lambda x: x * x)]
    assert oracles.check(oracles.torch_function(Square), at, against).verdict == "agrees"
    assert oracles.check(oracles.torch_module(Module), at, against).verdict == "agrees"
    scaled = oracles.torch_function(Square, options={"scale": 3.0})
    assert oracles.check(scaled, at, [oracles.torch_autograd(lambda x: 3 * x * x)]).verdict == "agrees"


def test_jax_functions_behind_decorators():
    jax = pytest.importorskip("jax")
    subject = jax.custom_vjp(traced(lambda W, z: z @ W))
    subject.defvjp(lambda W, z: (z @ W, (z, W)), lambda saved, d: (saved[0].T @ d, d @ saved[1].T))
    at = {"z": AT["z"], "W": AT["W"]}
    assert oracles.check(oracles.jax_function(subject), at, [oracles.torch_autograd(lambda z, W: z @ W)])


def test_references_behind_decorators():
    for reference in (oracles.torch_autograd(traced(lambda b, W, z: z @ W + b)), oracles.torch_autograd(torch.tanh)):
        assert reference.reference is not None
    subject = oracles.manual(DENSE.forward, DENSE.backward)
    against = [oracles.torch_autograd(traced(lambda b, W, z: z @ W + b))]
    assert oracles.check(subject, AT, against).verdict == "agrees"


def test_signatures_show_what_decorators_hide():
    assert list(signature_of(traced(subtract)).parameters) == ["W", "z"]
    assert list(signature_of(Square.forward).parameters) == ["ctx", "x", "power", "scale"]
    assert signature_of(np.sin) is None or signature_of(np.sin).parameters
