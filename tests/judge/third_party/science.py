"""Scientific functions, and layers in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from oracles import jax_function, jax_vjp
from third_party.layers import Layer, grown, normal, register

energy = Layer(
    "energy of a spring",
    lambda x, k: 0.5 * (k * x * x).sum(-1),
    lambda x, k: (0.5 * (k * x * x).sum(-1), (x, k)),
    lambda c, d: {"x": d[:, None] * c[0] * c[1], "k": (0.5 * d[:, None] * c[0] ** 2).sum(0)},
    lambda rng, k: {"x": rng.standard_normal((4 + k, 3)), "k": rng.uniform(0.5, 2, 3)},
)
energy.mistake("the force, −gradient", "constant_factor", x=lambda c, d, g: -g)
energy.mistake("the ½ kept", "constant_factor", x=lambda c, d, g: g / 2)
energy.mistake("dk not summed over the particles", "not_reduced", k=lambda c, d, g: 0.5 * d[:, None] * c[0] ** 2)

inverse = Layer(
    "inverse of a matrix",
    lambda A: torch.linalg.inv(A),
    lambda A: (np.linalg.inv(A),) * 2,
    lambda Y, d: {"A": -Y.T @ d @ Y.T},
    lambda rng, k: {"A": rng.standard_normal((3 + k, 3 + k)) + 4 * np.eye(3 + k)},
)
inverse.mistake("A⁻¹ where A⁻ᵀ belongs", "primal_transposed", A=lambda Y, d, g: -Y @ d @ Y)
inverse.mistake("the minus forgotten", "constant_factor", A=lambda Y, d, g: -g)

determinant = Layer(
    "log-determinant",
    lambda A: torch.linalg.slogdet(A)[1],
    lambda A: (np.linalg.slogdet(A)[1], A),
    lambda A, d: {"A": d * np.linalg.inv(A).T},
    lambda rng, k: {"A": rng.standard_normal((3 + k, 3 + k)) + 4 * np.eye(3 + k)},
)
determinant.mistake("A⁻¹ where A⁻ᵀ belongs", "transposed", ("primal_transposed",), A=lambda A, d, g: g.T.copy())

solve = Layer(
    "solution of A x = b",
    lambda A, b: torch.linalg.solve(A, b),
    lambda A, b: (np.linalg.solve(A, b), (A, np.linalg.solve(A, b))),
    lambda c, d: {"A": -np.outer(np.linalg.solve(c[0].T, d), c[1]), "b": np.linalg.solve(c[0].T, d)},
    lambda rng, k: {"A": rng.standard_normal((3 + k, 3 + k)) + 4 * np.eye(3 + k), "b": rng.standard_normal(3 + k)},
)
solve.mistake("A where Aᵀ belongs", "primal_transposed", b=lambda c, d, g: np.linalg.solve(c[0], d))
solve.mistake("dA transposed", "transposed", A=lambda c, d, g: g.T.copy())

trapezoids = Layer(
    "trapezoidal rule",
    lambda y: torch.trapezoid(y, dx=0.5),
    lambda y: (0.5 * (y.sum(-1) - (y[:, 0] + y[:, -1]) / 2), y),
    lambda y, d: {
        "y": 0.5 * d[:, None] * (1 - 0.5 * np.isin(np.arange(y.shape[1]), (0, y.shape[1] - 1)).astype(y.dtype))
    },
    lambda rng, k: {"y": rng.standard_normal(grown((3, 6), k))},
)
trapezoids.mistake(
    "the ends not halved", "wrong_only_in_locations", y=lambda y, d, g: 0.5 * d[:, None] * np.ones_like(y)
)


def fixed_point(x, rounds):
    y = np.zeros_like(x)
    for _ in range(rounds):
        y = np.cos(y) / 2 + x
    return y


def torch_fixed_point(x):
    y = torch.zeros_like(x)
    for _ in range(56):
        y = torch.cos(y) / 2 + x
    return y


equation = Layer(
    "solution of y = cos(y)/2 + x",
    torch_fixed_point,
    lambda x: (fixed_point(x, 56),) * 2,
    lambda y, d: {"x": d / (1 + np.sin(y) / 2)},
    lambda rng, k: {"x": rng.standard_normal(6 + k)},
)


def neumann(y, d, rounds):
    total = term = d
    for _ in range(rounds):
        term = -np.sin(y) / 2 * term
        total = total + term
    return total


equation.mistake("ten terms of the series", "not_converged", ("",), x=lambda y, d, g: neumann(y, d, 10))
equation.mistake(
    "the derivative of one iteration",
    "detached_term",
    ("derivative_missing", "known_factor"),
    x=lambda y, d, g: d.copy(),
)

residual = Layer(
    "x + sin x",
    lambda x: x + torch.sin(x),
    lambda x: (x + np.sin(x), x),
    lambda x, d: {"x": d * (1 + np.cos(x))},
    normal(4, 3),
)
residual.mistake("the skip path left out", "added_array", ("detached_term",), x=lambda x, d, g: d * np.cos(x))


def noisy(x, d, g):
    return g * (1 + 0.1 * np.random.default_rng().standard_normal(g.shape))


residual.mistake("noise in the backward", "random", ("not_repeatable",), x=noisy)


def half_sum(d):
    total = np.float16(0)
    for value in d:
        total = np.float16(total + np.float16(value))
    return d.dtype.type(total)


total = Layer(
    "a scale of a series",
    lambda x, a: a * torch.sin(x),
    lambda x, a: (a * np.sin(x), (x, a)),
    lambda c, d: {"x": d * c[1] * np.cos(c[0]), "a": (d * np.sin(c[0])).sum()},
    lambda rng, k: {"x": rng.standard_normal(40 + k), "a": rng.standard_normal(())},
)
total.mistake(
    "da summed in float16",
    "low_precision_accumulation",
    ("coarse_rounding", ""),
    a=lambda c, d, g: half_sum(d * np.sin(c[0])),
)

root = Layer(
    "square root of what is positive",
    lambda x: torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1.0)), 0.0),
    lambda x: (np.sqrt(np.maximum(x, 0)), x),
    lambda x, d: {"x": np.where(x > 0, d / (2 * np.sqrt(np.where(x > 0, x, 1))), 0)},
    normal(4, 3),
)


def behind_where(x, d, g):
    with np.errstate(all="ignore"):
        return d / (2 * np.sqrt(x)) * np.where(x > 0, x.dtype.type(1), x.dtype.type(0))


root.mistake("NaN times 0", "nan_behind_where", ("signs",), x=behind_where)


def jax_case(name, pattern, acceptable, f, right, wrong, draw):
    """Register a wrong jax.custom_vjp of a function of x."""

    def custom(derivative):
        rule = jax.custom_vjp(f)
        rule.defvjp(lambda x: (f(x), x), lambda x, d: (derivative(x, d),))
        return jax_function(rule, name=name)

    register(f"{name}, jax", pattern, acceptable, custom(wrong), custom(right), jax_vjp(f), draw)


jax_case(
    "log-sum-exp: p times too many entries",
    "constant_factor",
    (),
    lambda x: jax.nn.logsumexp(x, -1),
    lambda x, d: d[:, None] * jax.nn.softmax(x, -1),
    lambda x, d: d[:, None] * jax.nn.softmax(x, -1) * x.shape[-1],
    normal(3, 5),
)
jax_case(
    "Gaussian: −x forgotten",
    "known_factor",
    ("value_for_derivative",),
    lambda x: jnp.exp(-x * x / 2),
    lambda x, d: -d * x * jnp.exp(-x * x / 2),
    lambda x, d: d * jnp.exp(-x * x / 2),
    normal(4, 3),
)
jax_case(
    "cumulative sum: only its own entry",
    "block_diagonal",
    ("detached_term", "derivative_missing"),
    lambda x: jnp.cumsum(x, -1),
    lambda x, d: jnp.flip(jnp.cumsum(jnp.flip(d, -1), -1), -1),
    lambda x, d: d,
    normal(3, 4),
)
jax_case(
    "standard deviation: the mean not subtracted",
    "term_along_axis",
    (),
    lambda x: jnp.std(x, -1),
    lambda x, d: d[:, None] * (x - x.mean(-1, keepdims=True)) / (x.shape[-1] * jnp.std(x, -1, keepdims=True)),
    lambda x, d: d[:, None] * x / (x.shape[-1] * jnp.std(x, -1, keepdims=True)),
    normal(3, 5),
)
jax_case(
    "variance: n − 1 where n belongs",
    "constant_factor",
    (),
    lambda x: jnp.var(x, -1),
    lambda x, d: 2 * d[:, None] * (x - x.mean(-1, keepdims=True)) / x.shape[-1],
    lambda x, d: 2 * d[:, None] * (x - x.mean(-1, keepdims=True)) / (x.shape[-1] - 1),
    normal(3, 5),
)
