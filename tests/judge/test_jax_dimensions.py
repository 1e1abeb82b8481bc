"""What a trace decides by its example holds for every example that it serves: branches, numbers, options."""

import math

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from oracles.backends.jax_reference import jax_family, jax_vjp  # noqa: E402
from oracles.jaxpr.dimensions import Example  # noqa: E402
from oracles.jaxpr.learning import Translated  # noqa: E402
from oracles.jaxpr.patterns import fitting, ties  # noqa: E402
from oracles.rule import Perturbation  # noqa: E402

SHAPES = [(4, 3), (3, 3), (1, 5), (1, 1), (2, 5), (5, 2), (6, 4), (0, 3), (2, 1), (7, 7), (8, 2)]


def rooted(z):
    return z / z.shape[1] ** 0.5


def a_number(z):
    return z * math.sqrt(z.shape[1]) + sum(range(z.shape[0]))


def compared(z):
    n, m = z.shape
    if n != m and n >= 2:
        return z * (3 if n > m else 5)
    return z * max(n - m, m - n + 1) + min(n, 3)


def divided(z):
    n, m = z.shape
    return z * 2 if n % 2 == 0 else z * (m // 2) + (4 if m % 3 else 6)


def multiplied(z):
    return z.reshape(-1) * z.size + len(z)


@pytest.mark.parametrize("f", [rooted, a_number, compared, divided, multiplied])
def test_a_program_says_what_its_reference_says_of_every_shape(f):
    rule = jax_vjp(f)
    for n, m in SHAPES * 2:
        z = np.arange(1.0, n * m + 1).reshape(n, m)
        np.testing.assert_array_equal(rule(z=z)[0], np.asarray(f(z)), strict=True)
    assert rule.evaluate.traces <= 12


@pytest.mark.parametrize("f", [a_number, compared, divided])
def test_without_its_conditions_a_program_would_serve_too_much(f, monkeypatch):
    monkeypatch.setattr(Example, "suppose", lambda *args: None)
    with pytest.raises(AssertionError):
        test_a_program_says_what_its_reference_says_of_every_shape(f)


def test_the_root_of_a_dimension_is_traced_once():
    rule = jax_vjp(rooted)
    for n in range(1, 20):
        assert np.array_equal(rule(z=np.ones((2, n)))[0], np.ones((2, n)) / n**0.5)
    assert rule.evaluate.traces == 1


def gathered(z):
    return jnp.take_along_axis(z, z.argmax(1, keepdims=True), 1)


def greatest(z):
    return jax.lax.reduce_max(z, axes=(0,))


def told_apart(z):
    return z.sum(0) if z.shape[0] >= 1 else jnp.ones(5)


@pytest.mark.parametrize(
    ("f", "traces"),
    [
        (lambda z: z - z.max(1, keepdims=True), 1),
        (lambda z: z.sum(0), 1),
        (lambda z: z.mean(0), 1),
        (gathered, 1),  # JAX asks whether there are rows to gather from; there are no results that could be wrong
        (greatest, 2),  # −∞ to JAX, and NumPy refuses
        (told_apart, 2),
    ],
)
def test_what_full_arrays_taught_serves_empty_ones_where_it_may(f, traces):
    rule, xla = jax_vjp(f), jax_vjp(f, through="xla")
    for n in (4, 0):
        z = np.arange(3.0 * n).reshape(n, 3)
        (y, pull), (want, pull_xla) = rule(z=z), xla(z=z)
        np.testing.assert_array_equal(y, want, strict=True)
        np.testing.assert_array_equal(pull(y)["z"], pull_xla(want)["z"], strict=True)
    assert rule.evaluate.traces == traces


def test_without_asking_a_program_would_serve_too_much_that_is_empty(monkeypatch):
    monkeypatch.setattr(Translated, "serves_empty", lambda *args: True)
    for f in (greatest, told_apart):
        with pytest.raises((AssertionError, ValueError)):
            test_what_full_arrays_taught_serves_empty_ones_where_it_may(f, 2)


def test_conditions_that_divide_by_a_zero_say_nothing():
    rule = jax_vjp(lambda z, b: z + jnp.tile(b, [n // max(m, 1) for n, m in zip(z.shape, b.shape, strict=True)]))
    for n, m in ((4, 1), (0, 0), (4, 4), (2, 1), (0, 1), (6, 3)):
        b = np.arange(2.0 * m).reshape(m, 2)
        y, pull = rule(z=np.ones((n, 2)), b=b)
        np.testing.assert_array_equal(y, 1 + np.tile(b, (n // max(m, 1), 1)), strict=True)
        np.testing.assert_array_equal(pull(np.ones((n, 2)))["b"], np.full((m, 2), n // max(m, 1) * 1.0), strict=True)
    assert rule.evaluate.traces <= 6


def strided(z, step, scale, weights, flip):
    y = z[:: step[0], :: step[1]] * scale * jnp.array(weights, z.dtype).sum()
    return y[::-1] if flip else y


def test_one_program_serves_many_options():
    family, traces, z = jax_family(strided), 0, np.arange(35.0).reshape(5, 7)
    for k in range(12):
        options = {"step": (1 + k % 3, 1 + k % 4), "scale": k / 4, "weights": (0.5,) * (1 + k % 5), "flip": k % 2 == 0}
        rule = family(options)
        y, pull = rule(z=z)
        step, factor = options["step"], options["scale"] * sum(options["weights"])
        np.testing.assert_array_equal(
            y, z[:: step[0], :: step[1]][:: -1 if options["flip"] else 1] * factor, strict=True
        )
        want = np.zeros_like(z)
        want[:: step[0], :: step[1]] = factor
        np.testing.assert_array_equal(pull(np.ones_like(y))["z"], want)
        traces += rule.evaluate.traces
    assert traces <= 8


def branching(z, rate, power, axis):
    y = (z**power).sum(axis)
    return y / (1 - rate) if rate < 1 else y * 0


def test_options_may_decide():
    family, z = jax_family(branching), np.arange(6.0).reshape(2, 3)
    for rate in (0.0, 0.25, 1.0, 0.5):
        for power in (1, 2, 3, 0):
            for axis in (0, 1, -1):
                options = {"rate": rate, "power": power, "axis": axis}
                np.testing.assert_array_equal(family(options)(z=z)[0], np.asarray(branching(z, **options)))


def called_back(z, factor):
    like = jax.ShapeDtypeStruct(z.shape, z.dtype)
    known = jax.pure_callback(lambda x: np.asarray(x) * factor, like, jax.lax.stop_gradient(z))
    return known * z


def test_what_calls_back_is_traced_with_numbers():
    family = jax_family(called_back)
    for n, factor in ((2, 0.5), (3, 2.0), (4, 0.5), (3, 0.25)):
        z = np.arange(1.0, n + 1)
        rule = family({"factor": factor})
        y, pull = rule(z=z)
        assert np.array_equal(y, factor * z * z)
        assert np.array_equal(pull(np.ones(n))["z"], factor * z)
        assert rule.evaluate.compilations == 0


def test_a_pattern_serves_what_it_says():
    fits = fitting(("s0", "4*s1", "s1", 3, "s0", "~"), ["s0 != s1", "floordiv(s0, s1 - 1) > 0"])
    assert fits((5, 8, 2, 3, 5, 0.1))
    for dims in ((5, 9, 2, 3, 5, 0.1), (5, 8, 2, 4, 5, 0.1), (6, 8, 2, 3, 5, 0.1), (2, 8, 2, 3, 2, 0.1)):
        assert not fits(dims)
    assert not fits((5, 4, 1, 3, 5, 0.1))  # a division by zero
    assert not fits((0, 8, 2, 3, 0, 0.1))


def test_equalities_become_ties_where_the_example_meets_them():
    found = ["s0 == s3", "floordiv(s1, 4) == s2", "s3 == s4", "2*s2 == s5", "s6 == s0", "s0 > s1"]
    values = {"s0": 3, "s1": 8, "s2": 2, "s3": 3, "s4": 3, "s5": 4, "s6": 1}
    tied = ties(found, values)
    assert tied["s1"] == "4*s2"
    assert tied["s5"] == "2*s2"
    assert len({tied.get(s, s) for s in ("s0", "s3", "s4")}) == 1
    assert "s6" not in tied


def scaled(z, factor, weights):
    return jnp.where(z > 0, z, factor * z) * (1 - factor), z * jnp.array(weights, z.dtype)


@pytest.mark.parametrize("factor", [0.0, 1.0, 0.3])
def test_options_are_shaken_as_if_they_were_constants(factor):
    z, options = {"z": np.array([1.5, -2.5])}, {"factor": factor, "weights": (0.5, 2.0)}
    wide = (np.ones(2), np.ones(2))
    traced, constant = jax_vjp(scaled, options=options), jax_vjp(lambda z: scaled(z, **options))
    worst = []
    for rule in (traced, constant):
        y, pull = rule(**z)
        plain = [*y, pull(wide)["z"]]
        shaken = [rule.evaluate_perturbed(z, wide, Perturbation(np.random.default_rng(k), 2.0**-20)) for k in range(64)]
        moved = [[np.abs(a - b) for a, b in zip((*ys, gs["z"]), plain, strict=True)] for ys, gs in shaken]
        last = [np.abs(a) * 2.0**-20 for a in plain]  # the last rounding, as `oracles.tolerance` adds it
        worst.append([np.max((*column, a), axis=0) for *column, a in zip(*moved, last, strict=True)])
    for ours, theirs in zip(*worst, strict=True):
        np.testing.assert_array_equal(np.round(ours * 2**20, 3), np.round(theirs * 2**20, 3))
