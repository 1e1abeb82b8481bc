"""Finite differences of a JAX function evaluate a compiled form, where that has shown the values of plain calls."""

import itertools

import numpy as np
import pytest

from oracles import Disagreement, Verdict, check, jax_function
from oracles.compiled import repeated

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

RNG = np.random.default_rng(0)
POINT = {"a": RNG.standard_normal((5, 3)), "b": RNG.standard_normal((5, 3))}


def recurrence(traces, factor=1.0):
    """h ← σ(a) h + b over the first axis, by a loop that JAX traces anew in each plain call."""

    def step(h, ab):
        h = jax.nn.sigmoid(ab[0]) * h + ab[1]
        return h, h

    @jax.custom_vjp
    def f(a, b):
        traces.append("f")
        return jax.lax.scan(lambda *x: step(*x), jnp.zeros_like(a[0]), (a, b))[1]

    def fwd(a, b):
        traces.append("fwd")
        h = jax.lax.scan(lambda *x: step(*x), jnp.zeros_like(a[0]), (a, b))[1]
        return h, (a, h)

    def bwd(residuals, delta):
        a, h = residuals
        s = jax.nn.sigmoid(a)
        before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])

        def back(g, x):
            g = g + x[0]
            return g * x[1], g

        g = jax.lax.scan(back, jnp.zeros_like(a[0]), (delta, s), reverse=True)[1]
        return factor * g * before * s * (1 - s), g

    f.defvjp(fwd, bwd)
    return jax_function(f)


def test_recurrence_is_traced_a_few_times():
    traces = []
    result = check(recurrence(traces), POINT)
    assert result.verdict is Verdict.AGREES
    assert result.judged == {"output": (15, 15), "a": (15, 15), "b": (15, 15)}
    assert len(traces) < 100  # each entry takes about 20 evaluations


def test_wrong_recurrence_is_refused():
    with pytest.raises(Disagreement) as error:
        check(recurrence([], 1.01), {n: a[:3, :2] for n, a in POINT.items()}, seconds=600)
    assert error.value.verdict is Verdict.WRONG


def test_code_that_branches_on_values_is_called_plainly():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x) if float(x[0]) > 0 else jnp.cos(x)

    f.defvjp(lambda x: (f(x), x), lambda x, delta: (delta * (jnp.cos(x) if float(x[0]) > 0 else -jnp.sin(x)),))
    x = np.linspace(0.1, 1.0, 5)
    quick = repeated(jax_function(f))
    for point, expected in ((x, np.sin(x)), (-x, np.cos(x)), (x, np.sin(x))):
        assert np.max(np.abs(quick(x=point)[0] - expected)) < 1e-15


def test_code_with_a_state_is_called_plainly():
    count = itertools.count()

    def f(x):
        return x * (1 + next(count))

    quick = repeated(jax_function(f))
    values = [float(quick(x=np.ones(1))[0][0]) for _ in range(6)]
    assert len(set(values)) == 6


def test_code_with_a_state_is_refused():
    count = itertools.count()

    @jax.custom_vjp
    def f(x):
        return x * x

    def fwd(x):
        return x * x + 1e-3 * next(count), x

    f.defvjp(fwd, lambda x, delta: (2 * x * delta,))
    with pytest.raises(Disagreement):
        check(jax_function(f), {"x": np.linspace(1, 2, 4)})


def test_code_whose_compiled_form_has_other_values_is_called_plainly():
    def f(x):
        return x * (2.0 if isinstance(x, jax.core.Tracer) else 3.0)

    quick = repeated(jax_function(f))
    assert [float(quick(x=np.ones(1))[0][0]) for _ in range(5)] == [3.0] * 5
