"""The JAX oracle learns shapes, keeps precision and ownership, and says what it cannot do."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.backends.jax_reference import NotPerturbable, jax_vjp
from oracles.rule import Perturbation

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import nn  # noqa: E402

CONFIDENCE, H = 8.0, 2.0**-26
f8 = np.float64


def draw(shapes, seed=0, dtype=f8):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}


def deltas_of(y):
    return np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)


def mlp(**p):
    h = p["z"]
    for i in range(3):
        h = jnp.tanh(h @ p[f"{i}.W"] + p[f"{i}.b"])
    return h


def mlp_shapes(n, a, b, c, d):
    return {"z": (n, a), "0.W": (a, b), "0.b": (b,), "1.W": (b, c), "1.b": (c,), "2.W": (c, d), "2.b": (d,)}


def test_one_program_serves_every_shape_without_compiling():
    rule, seen = jax_vjp(mlp), []

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(st.tuples(st.integers(0, 9), *[st.integers(1, 9)] * 4))
    def search(dims):
        primals = draw(mlp_shapes(*dims), seed=len(seen))
        y, pull = rule(**primals)
        assert {k: g.shape for k, g in pull(deltas_of(y)).items()} == {k: a.shape for k, a in primals.items()}
        seen.append(dims)

    search()
    assert len(set(seen)) > 50
    assert rule.evaluate.traces <= 12
    assert rule.evaluate.compilations == 0


def test_untraceable_dimensions_settle_on_constants():
    def halves(z, k):
        return jnp.reshape(z, (z.shape[0], 2, z.shape[1] // 2)).sum(1) @ k

    rule = jax_vjp(halves)
    for n in range(1, 40):
        primals = draw({"z": (n, 6), "k": (3, 2)})
        y, pull = rule(**primals)
        assert np.array_equal(y, primals["z"].reshape(n, 2, 3).sum(1) @ primals["k"])
        pull(deltas_of(y))
    assert rule.evaluate.traces <= 8


def test_shape_branches_are_not_baked_in():
    def f(z):
        if z.shape[0] == 1:
            return z * 3
        return z * 2 if z.shape[0] == z.shape[1] else z

    rule = jax_vjp(f)
    for shape, factor in [((4, 3), 1), ((3, 3), 2), ((1, 5), 3), ((1, 1), 3), ((2, 5), 1), ((5, 5), 2)]:
        z = draw({"z": shape})["z"]
        assert np.array_equal(rule(z=z)[0], factor * z)


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
    with pytest.raises(TypeError, match=r"Incompatible|contract") as caught:
        jax_vjp(lambda z, W: z @ W, through=through)(**draw({"z": (2, 3), "W": (2, 3)}))
    assert "z: float64[2, 3], W: float64[2, 3]" in "".join(caught.value.__notes__)


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


def test_only_rounding_operations_are_shaken():
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
