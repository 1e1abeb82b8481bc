"""Networks as students write them, judged without a reference, each with one classic mistake in its backward.

Two styles: a pair of functions that return and take a cache, and a class that keeps its cache in itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from oracles import manual, stateful
from planted_bugs.pairs import at_point

RNG = np.random.default_rng(29)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@dataclass(frozen=True)
class Activation:
    """A function, its derivative from z and a = f(z), and the same derivative as a function of z alone."""

    name: str
    f: Callable
    prime: Callable

    def derivative(self, z):
        return self.prime(z, self.f(z))


SIGMOID = Activation("sigmoid", sigmoid, lambda z, a: a * (1 - a))
TANH = Activation("tanh", np.tanh, lambda z, a: 1 - a**2)
RELU = Activation("ReLU", lambda z: np.maximum(0, z), lambda z, a: z > 0)
SOFTPLUS = Activation("softplus", lambda z: np.log(1 + np.exp(z)), lambda z, a: sigmoid(z))


@dataclass(frozen=True)
class Mistakes:
    """What a backward does in place of the right thing; by default the right thing.

    Attributes:
        prime: ``prime(activation, z, a)``, what stands for f'(z).
        layer: the layer whose activation it stands in, −1 for all.
        error: ``error(a, t, N)``, the derivative of the loss.
        weight: ``weight(W)``, what delta is multiplied by on its way back.
        bias: ``bias(delta)``, the gradient of a bias.
    """

    prime: Callable = field(default=lambda activation, z, a: activation.prime(z, a))
    layer: int = -1
    error: Callable = field(default=lambda a, t: a - t)
    weight: Callable = field(default=np.transpose)
    bias: Callable = field(default=lambda delta: delta.sum(0))


RIGHT = Mistakes()


def forward(activation, x, t, parameters):
    """Return half the squared error of a network of any depth, and the cache."""
    a, cache = x, []
    for W, b in parameters:
        z = a @ W + b
        cache.append((a, W, z))
        a = activation.f(z)
    return 0.5 * np.sum((a - t) ** 2), (cache, a, t)


def backward(activation, mistakes, cache, d):
    """Return the gradients of x and of each layer's W and b."""
    layers, a, t = cache
    delta, gradients = d * mistakes.error(a, t), []
    for k, (before, W, z) in reversed(list(enumerate(layers))):
        prime = mistakes.prime if mistakes.layer in (-1, k) else RIGHT.prime
        delta = delta * prime(activation, z, a)
        gradients.insert(0, (before.T @ delta, mistakes.bias(delta)))
        delta, a = delta @ mistakes.weight(W), before
    return delta, gradients


def pairs_of(flat):
    return list(zip(flat[::2], flat[1::2], strict=True))


def names_of(depth):
    return [f"{n}{k}" for k in range(1, depth + 1) for n in "Wb"]


def two_functions(activation, mistakes, depth):
    """Return the network as a pair of functions."""
    names = names_of(depth)

    def network(**primals):
        return forward(activation, primals["x"], TARGETS[len(primals["x"])], pairs_of([primals[n] for n in names]))

    def gradients(cache, d):
        dx, of_parameters = backward(activation, mistakes, cache, d)
        return {"x": dx, **dict(zip(names, (g for pair in of_parameters for g in pair), strict=True))}

    return manual(network, gradients, name="two functions")


class Network:
    """The network as a class that keeps parameters, cache and gradients."""

    def __init__(self, activation, mistakes, depth):
        self.activation, self.mistakes = activation, mistakes
        self.params = {n: POINT[n] for n in names_of(depth)}
        self.grads = {}

    def forward(self, x):
        y, self.cache = forward(
            self.activation, x, TARGETS[len(x)], pairs_of([self.params[n] for n in sorted(self.params, key=by_layer)])
        )
        return y

    def backward(self, d):
        dx, of_parameters = backward(self.activation, self.mistakes, self.cache, d)
        for k, (dW, db) in enumerate(of_parameters, 1):
            self.grads[f"W{k}"], self.grads[f"b{k}"] = dW, db
        return dx


def by_layer(name):
    return name[1:], name[0]


def one_class(activation, mistakes, depth):
    names = names_of(depth)
    return stateful(
        partial(Network, activation, mistakes, depth),
        params={n: f"params['{n}']" for n in names},
        grads={n: f"grads['{n}']" for n in names},
        name="one class",
    )


# Square matrices, so that a product with W in place of its transpose has the right shape.
WIDTH, ROWS = 3, 4
TARGETS = {rows: np.random.default_rng(rows).uniform(0.1, 0.9, (rows, WIDTH)) for rows in range(1, 16)}
POINT = {"x": RNG.standard_normal((ROWS, WIDTH))}
POINT |= {n: RNG.standard_normal((WIDTH, WIDTH) if n[0] == "W" else WIDTH) for n in names_of(3)}

STYLES = (two_functions, one_class)
forgotten = Mistakes(prime=lambda f, z, a: np.ones_like(a), layer=0)
value = Mistakes(prime=lambda f, z, a: a)
mean = Mistakes(error=lambda a, t: (a - t) / len(a))
sign = Mistakes(error=lambda a, t: t - a)
double = Mistakes(prime=lambda f, z, a: f.derivative(a), layer=0)
transposed = Mistakes(weight=lambda W: W)
not_summed = Mistakes(bias=lambda delta: delta)
# True of it, and no pattern: a smooth factor that is no function of the network's own arrays.
unnamed = Mistakes(prime=lambda f, z, a: f.prime(z, a) * (1 + 0.1 * np.sin(3 * z + 1)), layer=0)

CLASSIC = (
    ("forgotten derivative", forgotten, "derivative_missing"),
    ("a for a(1 - a)", value, "value_for_derivative"),
    ("mean for sum", mean, "constant_factor"),
    ("sign", sign, "constant_factor"),
    ("sigmoid twice", double, "derivative_at_output"),
    ("W not transposed", transposed, "primal_transposed"),
    ("bias not summed", not_summed, "not_reduced"),
    ("no classic mistake", unnamed, ""),
)


def plant(name, style, activation, mistakes, depth, pattern, *, deep=True):
    at = {n: POINT[n] for n in ("x", *names_of(depth))}
    subjects = [style(activation, m, depth) for m in (mistakes, RIGHT)]
    at_point(
        f"{name}, {activation.name} network of {depth}, {style.__name__}", *subjects, at, pattern=pattern, deep=deep
    )


for style in STYLES:
    for name, mistakes, pattern in CLASSIC:
        plant(name, style, SIGMOID, mistakes, 2, pattern, deep=style is not STYLES[0])

# Other activations, other depths
plant("forgotten derivative", two_functions, TANH, forgotten, 3, "derivative_missing")
plant(
    "value for derivative", two_functions, TANH, Mistakes(prime=lambda f, z, a: a, layer=1), 2, "value_for_derivative"
)
plant("tanh twice", one_class, TANH, double, 2, "derivative_at_output")
plant("forgotten derivative", one_class, RELU, forgotten, 2, "derivative_missing")
plant("value for derivative", one_class, RELU, Mistakes(prime=lambda f, z, a: a, layer=0), 2, "value_for_derivative")
plant("forgotten derivative", one_class, SOFTPLUS, forgotten, 2, "derivative_missing")
plant("softplus twice", two_functions, SOFTPLUS, double, 2, "derivative_at_output")
plant("W not transposed", two_functions, RELU, transposed, 3, "primal_transposed")
at_z = Mistakes(prime=lambda f, z, a: z * (1 - z), layer=1)
plant("a(1 - a) of z", two_functions, SIGMOID, at_z, 2, "formula_at_input")
twice = Mistakes(prime=lambda f, z, a: f.prime(z, a) ** 2, layer=0)
plant("derivative twice", two_functions, TANH, twice, 2, "derivative_twice")


def residual(z, W):
    return z + SOFTPLUS.f(z @ W), (z, W)


def residual_back(c, d, sign):
    z, W = c
    inner = d * sigmoid(z @ W)
    return {"z": d + sign * inner @ W.T, "W": z.T @ inner}


at_point(
    "wrong sign in one of two paths",
    *(manual(residual, partial(residual_back, sign=s), name="skip") for s in (-1, 1)),
    {"z": RNG.standard_normal((2, 3)), "W": RNG.standard_normal((3, 3))},
    pattern="sign_inside",
)


# Networks of layers: the first wrong one on the way back is named, and what is wrong in it alone
class Dense:
    def __init__(self, k, weight=np.transpose):
        self.W, self.b, self.weight = POINT[f"W{k}"], POINT[f"b{k}"], weight

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, delta):
        self.dW, self.db = self.x.T @ delta, delta.sum(0)
        return delta @ self.weight(self.W)


class Sigmoid:
    def __init__(self, prime=SIGMOID.prime):
        self.prime = prime

    def forward(self, z):
        self.z, self.a = z, sigmoid(z)
        return self.a

    def backward(self, delta):
        return delta * self.prime(self.z, self.a)


class Chain:
    def __init__(self, *layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, delta):
        for layer in reversed(self.layers):
            delta = layer.backward(delta)
        return delta


def chain(sigmoid_layer, last):
    places = {"W1": "layers[0].W", "b1": "layers[0].b", "W2": "layers[2].W", "b2": "layers[2].b"}
    grads = {n: place.replace(".", ".d") for n, place in places.items()}
    return stateful(Chain(Dense(1), sigmoid_layer, last, Sigmoid()), params=places, grads=grads, name="chain")


RIGHT_CHAIN = chain(Sigmoid(), Dense(2))
WRONG_CHAINS = {
    "layers[1] (Sigmoid)": (chain(Sigmoid(lambda z, a: np.ones_like(a)), Dense(2)), "derivative_missing"),
    "layers[2] (Dense)": (chain(Sigmoid(), Dense(2, lambda W: W)), "primal_transposed"),
}
for place, (wrong, pattern) in WRONG_CHAINS.items():
    at = {n: POINT[n] for n in ("x", *names_of(2))}
    at_point(f"wrong in {place} of a chain", wrong, RIGHT_CHAIN, at, pattern=pattern)
