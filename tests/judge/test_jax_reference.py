"""The JAX oracle: every shape, option and dtype, rounding, ownership, and what goes to XLA."""

import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.backends.jax_reference import jax_family, jax_vjp
from oracles.constants import SIGN_SIZES
from oracles.rule import NotPerturbable, Perturbation, as_tuple

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import nn  # noqa: E402
from jax_operations import mlp, mlp_shapes  # noqa: E402

CONFIDENCE, H = 8.0, 2.0**-26
f8 = np.float64


def draw(shapes, seed=0, dtype=f8):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}


def deltas_of(y):
    return np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)


def test_every_shape_is_traced_once_and_nothing_is_compiled():
    rule, shapes_drawn = jax_vjp(mlp), []

    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(st.tuples(st.integers(0, 9), *[st.integers(1, 9)] * 4))
    def search(dims):
        for _ in range(2):
            primals = draw(mlp_shapes(*dims), seed=len(shapes_drawn))
            y, pull = rule(**primals)
            assert {k: g.shape for k, g in pull(deltas_of(y)).items()} == {k: a.shape for k, a in primals.items()}
        shapes_drawn.append(dims)

    search()
    assert len(set(shapes_drawn)) > 20
    assert rule.evaluate.traces == len(set(shapes_drawn))
    assert rule.evaluate.compilations == 0


def test_the_traces_used_least_recently_are_forgotten(monkeypatch):
    monkeypatch.setattr("oracles.backends.jax_reference.KEPT", 2)
    rule = jax_vjp(jnp.sin)
    for n in (1, 2, 1, 3, 1, 2):
        rule(x=np.ones(n))
    assert rule.evaluate.traces == 4


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
def test_python_code_on_shapes_is_run_for_each_shape(f):
    rule = jax_vjp(f)
    for n, m in SHAPES * 2:
        z = np.arange(1.0, n * m + 1).reshape(n, m)
        np.testing.assert_array_equal(rule(z=z)[0], np.asarray(f(z)), strict=True)
    assert rule.evaluate.traces == len(SHAPES)


def gathered(z):
    return jnp.take_along_axis(z, z.argmax(1, keepdims=True), 1)


def greatest(z):
    return jax.lax.reduce_max(z, axes=(0,))


def told_apart(z):
    return z.sum(0) if z.shape[0] >= 1 else jnp.ones(5)


def summed(z):
    return z.sum(0)


def scanned(z):
    return jax.lax.scan(lambda h, x: (h + x, h * x), z[:1].sum(0), z)


@pytest.mark.parametrize("f", [summed, gathered, greatest, told_apart, scanned])
def test_empty_arrays_agree_with_xla(f):
    rule, xla = jax_vjp(f), jax_vjp(f, through="xla")
    for n in (4, 0, 2):
        z = np.arange(3.0 * n).reshape(n, 3)
        (y, pull), (expected, pull_xla) = rule(z=z), xla(z=z)
        for actual, part in zip(as_tuple(y), as_tuple(expected), strict=True):
            np.testing.assert_array_equal(actual, part, strict=True)
        np.testing.assert_array_equal(pull(y)["z"], pull_xla(expected)["z"], strict=True)


def strided(z, step, scale, weights, flip):
    y = z[:: step[0], :: step[1]] * scale * jnp.array(weights, z.dtype).sum()
    return y[::-1] if flip else y


def test_options_of_all_kinds():
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
    assert traces == 12


def test_one_trace_serves_all_values_of_floating_options():
    family, traces, z = jax_family(lambda z, scale, weights: z * scale * jnp.array(weights, z.dtype)), 0, np.ones(2)
    for scale, weights in ((0.5, (1.0, 2.0)), (1.0, (0.0, 3.0)), (3.0, (1.0, 1.0)), (2.0, (0.25, -1.0))):
        rule = family({"scale": scale, "weights": weights})
        assert np.array_equal(rule(z=z)[1](z)["z"], scale * np.array(weights))
        traces += rule.evaluate.traces
    assert traces == 1


def test_options_are_told_apart_by_type_and_sign():
    family = jax_family(lambda z, k: z + (k is True) if isinstance(k, int) or k >= 1 else z / k)
    for k, expected in ((1, 2.0), (True, 3.0), (0.0, np.inf), (-0.0, -np.inf)):
        assert family({"k": k})(z=np.array([2.0]))[0][0] == expected


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


def test_a_callback_sees_the_values_of_options():
    family = jax_family(called_back)
    for n, factor in ((2, 0.5), (3, 2.0), (4, 0.5), (3, 0.25)):
        z = np.arange(1.0, n + 1)
        rule = family({"factor": factor})
        y, pull = rule(z=z)
        assert np.array_equal(y, factor * z * z)
        assert np.array_equal(pull(np.ones(n))["z"], factor * z)
        assert rule.evaluate.compilations == 0


def called_back_in_a_loop(z, factor):
    return jax.lax.scan(lambda h, x: (h, called_back(x, factor)), 0.0, z)[1]


def test_a_callback_in_a_loop_sees_them_too():
    family, z = jax_family(called_back_in_a_loop), np.arange(6.0).reshape(3, 2)
    for factor in (0.5, 2.0):
        assert np.array_equal(family({"factor": factor})(z=z)[0], factor * z * z)


def scaled(z, factor, weights):
    return jnp.where(z > 0, z, factor * z) * (1 - factor), z * jnp.array(weights, z.dtype)


@pytest.mark.parametrize("factor", [0.0, 1.0, 0.3])
def test_options_are_perturbed_as_if_they_were_constants(factor):
    z, options = {"z": np.array([1.5, -2.5])}, {"factor": factor, "weights": (0.5, 2.0)}
    wide = (np.ones(2), np.ones(2))
    traced, constant = jax_vjp(scaled, options=options), jax_vjp(lambda z: scaled(z, **options))
    worst = []
    for rule in (traced, constant):
        y, pull = rule(**z)
        plain = [*y, pull(wide)["z"]]
        samples = [
            rule.evaluate_perturbed(z, wide, Perturbation(np.random.default_rng(k), 2.0**-20)) for k in range(64)
        ]
        deviations = [[np.abs(a - b) for a, b in zip((*ys, gs["z"]), plain, strict=True)] for ys, gs in samples]
        last = [np.abs(a) * 2.0**-20 for a in plain]  # the last rounding, as `oracles.tolerance` adds it
        worst.append([np.max((*column, a), axis=0) for *column, a in zip(*deviations, last, strict=True)])
    for ours, other in zip(*worst, strict=True):
        # One rounding more, of another size, would count for 3/4 at least; the largest of 64 sums of sizes is no whole
        # number of them.
        assert np.all(np.abs(ours - other) <= (SIGN_SIZES[1] - 1) * other)


def test_an_unknown_primitive_goes_to_xla():
    def f(z):
        return jnp.linalg.cholesky(z @ z.T + jnp.eye(z.shape[0]))

    primals = draw({"z": (3, 3)})
    rule, xla = jax_vjp(f), jax_vjp(f, through="xla")
    (y, pull), (y_xla, pull_xla) = rule(**primals), xla(**primals)
    assert rule.evaluate.compilations == 1
    assert np.array_equal(y, y_xla)
    assert np.array_equal(pull(y)["z"], pull_xla(y)["z"])
    with pytest.raises(NotPerturbable, match="XLA"):
        rule.evaluate_perturbed(primals, y, Perturbation(np.random.default_rng(0), H))


def test_integers_and_booleans_have_no_cotangent():
    z, i, m = np.ones((2, 3)), np.array([1, 0]), np.array([True, False])
    for through in ("numpy", "xla"):
        y, pull = jax_vjp(lambda z, i, m: jnp.where(m[:, None], z[i], 0.0), through=through)(z=z, i=i, m=m)
        assert pull(y).keys() == {"z"}


@pytest.mark.parametrize("through", ["numpy", "xla"])
def test_a_broken_reference_says_where(through):
    with pytest.raises(TypeError, match=r"Incompatible|contract") as excinfo:
        jax_vjp(lambda z, W: z @ W, through=through)(**draw({"z": (2, 3), "W": (2, 3)}))
    assert "z: float64[2, 3], W: float64[2, 3]" in "".join(excinfo.value.__notes__)


def test_a_branch_on_values_says_how_to_write_it():
    with pytest.raises(TypeError, match=r"jnp\.where"):
        jax_vjp(lambda z: z if z.sum() > 0 else -z)(z=np.ones(3))


def test_a_wrong_delta_is_refused():
    _, pull = jax_vjp(lambda z: z * 2)(z=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        pull(np.ones(3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_precision_is_that_of_the_primals(dtype):
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    primals = draw(mlp_shapes(3, 4, 5, 2, 6), dtype=dtype)
    y, pull = jax_vjp(mlp)(**primals)
    _, exact_pull = jax_vjp(mlp)(**{k: a.astype(f8) for k, a in primals.items()})
    assert {a.dtype for a in (y, *pull(y).values())} == {dtype}
    noisy = jax_vjp(mlp).evaluate_perturbed(
        {k: a.astype(f8) for k, a in primals.items()}, y.astype(f8), Perturbation(np.random.default_rng(0), H)
    )
    unit = float(ml_dtypes.finfo(dtype).eps) / 2
    worst = max(np.abs(g.astype(f8) - exact_pull(y.astype(f8))[k]).max() for k, g in pull(y).items())
    reach = max(np.abs(g - exact_pull(y.astype(f8))[k]).max() / H for k, g in noisy[1].items())
    assert worst <= CONFIDENCE * 6**0.5 * unit * reach


def test_results_are_reproducible_and_belong_to_the_caller():
    rule, primals = jax_vjp(lambda z: (z.T, z, z * 2)), draw({"z": (3, 2)})
    primals["z"].flags.writeable = False
    y, pull = rule(**primals)
    for part in (*y, *pull(y).values()):
        part[...] = 7
    again, _ = rule(**primals)
    assert np.array_equal(again[0], primals["z"].T)
    runs = [rule.evaluate_perturbed(primals, again, Perturbation(np.random.default_rng(5), H)) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(runs[0][0], runs[1][0], strict=True))


def test_only_rounding_operations_are_perturbed():
    z = draw({"z": (4, 5)})
    exact = jax_vjp(lambda z: jnp.flip(nn.relu(z.T.reshape(-1))) * -1.0)
    y, pull = exact(**z)
    ys, gs = exact.evaluate_perturbed(z, y, Perturbation(np.random.default_rng(0), 2.0**-3))
    assert np.array_equal(ys[0], y)
    assert np.array_equal(gs["z"], pull(y)["z"])
    summed = jax_vjp(lambda z: z.sum(1))
    ys, _ = summed.evaluate_perturbed(z, np.ones(4), Perturbation(np.random.default_rng(0), 2.0**-3))
    assert not np.any(ys[0] == summed(**z)[0])


def test_import_is_cold():
    code = (
        "import sys, oracles.backends.jax_reference; raise SystemExit(any(m in sys.modules for m in ('jax', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@jax.custom_vjp
def straight_through(z):
    return jnp.round(z)


straight_through.defvjp(lambda z: (jnp.round(z), z), lambda z, delta: (delta * jnp.cos(z),))


@jax.custom_jvp
def doubled_tangent(z):
    return jnp.tanh(z)


doubled_tangent.defjvp(lambda primals, tangents: (jnp.tanh(*primals), 2 * tangents[0]))


def test_custom_derivatives_define_the_gradient():
    z, delta = np.array([0.3, -1.6]), np.array([1.0, 2.0])
    for _ in range(2):  # the second trace inlines what is jitted
        assert np.array_equal(jax_vjp(straight_through)(z=z)[1](delta)["z"], delta * np.cos(z))
        assert np.array_equal(jax_vjp(doubled_tangent)(z=z)[1](delta)["z"], 2 * delta)
        z, delta = np.append(z, 2.0), np.append(delta, 3.0)


def test_rematerialized_code_is_evaluated():
    z = np.array([0.3, -1.6])
    y, pull = jax_vjp(jax.checkpoint(lambda z: jnp.sin(jnp.sin(z))))(z=z)
    np.testing.assert_array_equal(y, np.sin(np.sin(z)))
    np.testing.assert_array_equal(pull(np.ones(2))["z"], np.cos(np.sin(z)) * np.cos(z))


def test_what_the_caller_writes_into_results_reaches_no_pullback():
    rule, z = jax_vjp(lambda z: (jnp.exp(z), jnp.exp(z).reshape(-1), z[None] + 0)), draw({"z": (2, 3)})["z"]
    y, pull = rule(z=z)
    delta = tuple(np.ones_like(part) for part in y)
    expected = pull(delta)["z"]
    for part in y:
        part[...] = 7
    pull(delta)["z"][...] = 7
    assert np.array_equal(pull(delta)["z"], expected)


def test_results_are_arrays_of_their_own_also_without_axes_or_inputs():
    y, pull = jax_vjp(lambda z: (z.sum(), jnp.ones(2), jnp.float32(3)))(z=np.ones(3))
    assert [(type(part), part.shape) for part in y] == [(np.ndarray, ()), (np.ndarray, (2,)), (np.ndarray, ())]
    g = pull((np.float64(2.0), np.ones(2), np.float32(1)))["z"]
    assert np.array_equal(g, [2.0, 2.0, 2.0])
    assert all(part.base is None and part.flags.writeable for part in (*y, g))


def test_the_memory_of_large_arrays_is_freed():

    def chain(z):
        for _ in range(20):
            z = jnp.sin(z)
        return z

    rule, z = jax_vjp(chain), np.ones(2**17)
    rule(z=z)
    tracemalloc.start()
    y, pull = rule(z=z)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * z.nbytes  # the residuals, and some
    assert np.array_equal(pull(y)["z"], pull(y)["z"])
    primal_only = jax_vjp(lambda z: jax.lax.stop_gradient(chain(z)))
    primal_only(z=z)
    tracemalloc.start()
    primal_only(z=z)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * z.nbytes
    small = primal_only(z=z[:4])[0]
    assert np.array_equal(small, primal_only(z=z)[0][:4])
