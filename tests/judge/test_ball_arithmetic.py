"""The exact oracle: its enclosures hold the truth, and what it cannot see it refuses."""

import subprocess
import sys
from fractions import Fraction
from math import erf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_forwards import FORWARDS, RNG, N, rule

import manual_bp as m
from manual_bp._normal import cumulative
from oracles.backends.jax_reference import jax_vjp
from oracles.backends.torch_reference import torch_autograd
from oracles.exact.ball_arithmetic import ball_arithmetic, certified_enclosures
from oracles.finite_differences import finite_difference
from oracles.rule import NotPerturbable, as_tuple
from oracles.tolerance import named_outputs

torch = pytest.importorskip("torch")
pytest.importorskip("flint", reason="pip install 'manual-bp[exact]'")


def exact(f, delta=None, **primals):
    y, pullback = ball_arithmetic(rule(f))(**primals)
    return pullback(np.ones(np.shape(y)) if delta is None else delta)


@pytest.mark.parametrize("name", FORWARDS)
def test_hand_written_forwards_agree_with_their_finite_differences(name):
    f, shapes = FORWARDS[name]
    primals = {n: N(s) if isinstance(s, tuple) else np.array(s) for n, s in shapes.items()}
    y, pullback = ball_arithmetic(rule(f))(**primals)
    delta = tuple(map(N, map(np.shape, y))) if isinstance(y, tuple) else N(np.shape(y))
    cotangents, differences = pullback(delta), finite_difference(rule(f))(**primals)[1](delta)
    assert cotangents.keys() == differences.keys()
    for name, e in cotangents.items():
        assert e.mid.shape == e.radius.shape == primals[name].shape
        assert np.all(np.abs(e.mid - differences[name].mid) <= e.radius + differences[name].radius)
        assert np.all(e.radius <= np.spacing(np.abs(e.mid)))
    certified = certified_enclosures(rule(f), primals, delta, "float64")
    for name, part in named_outputs(as_tuple(f(**primals)), {}).items():
        assert np.all(np.abs(part - named_outputs(as_tuple(y), {})[name]) <= certified[name].rounding)


@pytest.mark.parametrize("power", [3, 2.0, -1, 0, 0.5, 1.5, Fraction(2)])
@settings(max_examples=25)
@given(z=st.floats(2**-10, 2**10), delta=st.floats(-4, 4))
def test_powers_against_the_closed_form(power, z, delta):
    from flint import arb, ctx, fmpq

    with ctx.workprec(400):
        p = arb(fmpq(Fraction(power).numerator, Fraction(power).denominator))
        truth = arb(delta) * p * arb(z) ** (p - 1)
        cotangent = exact(lambda z: z**power, np.array(delta), z=np.array(z))["z"]
        assert abs(truth - cotangent.mid.item()).abs_lower() <= cotangent.radius.item()


UFUNCS = "exp exp2 expm1 log log2 log10 log1p sqrt cbrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arctanh"


@pytest.mark.parametrize("name", [*UFUNCS.split(), "arccosh", "square", "reciprocal", "fabs"])
def test_ufuncs_against_their_finite_differences(name):
    def f(z):
        return getattr(np, name)(z + (1.5 if name == "arccosh" else 0))

    z, delta = RNG.uniform(0.2, 0.8, 3), N(3)
    difference = finite_difference(rule(f))(z=z)[1](delta)["z"]
    cotangent = exact(f, delta, z=z)["z"]
    assert np.all(np.abs(cotangent.mid - difference.mid) <= cotangent.radius + difference.radius)
    assert np.all(cotangent.radius <= np.spacing(np.abs(cotangent.mid)))


def test_a_ball_is_asked_for_the_normal_distribution_that_numpy_lacks():
    z, delta = np.array([-30.0, -1.5, 0.0, 2.0]), N(4)
    difference = finite_difference(rule(lambda z: cumulative(z)))(z=z)[1](delta)["z"]
    cotangent = exact(lambda z: cumulative(z), delta, z=z)["z"]
    assert np.all(np.abs(cotangent.mid - difference.mid) <= cotangent.radius + difference.radius)
    assert np.all(cotangent.radius <= np.spacing(np.abs(cotangent.mid)))
    assert cotangent.mid[0] != 0


SMOOTH = m.Sigmoid(), m.SiLU(), m.Softplus(), m.Softplus(2.0, 3.5), m.GELU(), m.GELU("tanh"), m.Tanh(), m.SwiGLU()
WEIGHED = m.BinaryCrossEntropyWithLogits("sum", 3.0)


@pytest.mark.parametrize("layer", [*SMOOTH, m.ReLU(), m.LeakyReLU(), m.LeakyReLU(2.0)], ids=repr)
def test_forward_and_backward_choose_the_same_branch_at_zero(layer):
    """A formula with branches is smooth if all take the same side; a dozen roundings, of numbers below 8."""
    z = np.array([[0.0, 1.0, -2.0, -0.0, 0.0, 0.5]])
    y, cache = layer.forward({}, z)
    delta = N(y.shape)
    mid = exact(lambda z: layer.forward({}, z)[0], delta, z=z)["z"].mid
    assert np.all(np.abs(mid - layer.backward(cache, delta)[0]) <= 2.0**-53 * 12 * 8)


@pytest.mark.parametrize("loss", [m.BinaryCrossEntropyWithLogits(), WEIGHED], ids=repr)
def test_at_zero_a_loss_takes_the_side_that_its_backward_takes(loss):
    y, target = np.array([[0.0, 1.0, -2.0, -0.0]]), np.array([[0.25, 1.0, 0.5, 1.0]])
    mid = exact(lambda y: loss.forward(y, target)[0], np.ones(()), y=y)["y"].mid
    assert np.all(np.abs(mid - loss.backward(loss.forward(y, target)[1])) <= 2.0**-53 * 12 * 8)


def test_it_proves_what_torch_and_jax_lose():
    jnp = pytest.importorskip("jax.numpy")
    z, one = np.array([-40.0]), np.ones(1)
    cotangent = exact(lambda z: np.expm1(z), z=z)["z"]
    assert 4.248e-18 < cotangent.mid[0] < 4.249e-18
    assert cotangent.radius[0] < 1e-33
    assert torch_autograd(lambda z: z.expm1())(z=z)[1](one)["z"][0] == 0
    assert jax_vjp(lambda z: jnp.expm1(z))(z=z)[1](one)["z"][0] == 0


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda z: np.abs(z), 0),  # no branch to follow: the convention is 0
        (lambda z: np.maximum(z, 0), 1),  # NumPy takes the first of two equals
        (lambda z: np.maximum(0, z), 0),
        (lambda z: np.where(z > 0, z, 0.25 * z), 0.25),
        (lambda z: np.where(z >= 0, z, 0.25 * z), 1),
    ],
)
def test_at_a_kink_the_derivative_is_that_of_the_branch_taken(f, slope):
    cotangent = exact(f, z=np.zeros(2))["z"]
    assert np.all(cotangent.mid == slope)
    assert np.all(cotangent.radius == 0)


def test_more_precision_decides():
    """A cancellation of 300 digits; and two numbers that differ in the 200th bit only."""
    huge = exact(lambda z: (z + 2.0**1000) * z - 2.0**1000 * z, z=np.array([3.0]))["z"]
    assert huge.mid[0] == 6
    assert huge.radius[0] == 0
    close = exact(lambda z: np.where((1 + z) * (1 + z) > 1 + 2 * z, z, -z), z=np.array([2.0**-500]))["z"]
    assert close.mid[0] == 1


def test_no_derivative_has_no_bound():
    assert exact(lambda z: np.sqrt(z), z=np.zeros(1))["z"].radius[0] == np.inf
    assert exact(lambda z: np.exp(z), z=np.array([1e4]))["z"].radius[0] == np.inf


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble, "bfloat16"])
def test_inputs_of_every_precision_are_exact(dtype):
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    z = np.array([0.1, -3.0]).astype(dtype)
    cotangent = exact(lambda z: z * z, z=z)["z"]
    assert np.all(np.abs(cotangent.mid - 2 * z.astype(np.longdouble)) <= cotangent.radius)
    if dtype != np.longdouble:
        assert np.all(cotangent.radius == 0)


def allocates_floats(z):
    y = np.zeros(z.shape)
    y[:] = z
    return y


@pytest.mark.parametrize(
    ("f", "cause"),
    [
        (allocates_floats, "float.*np.zeros_like"),
        (lambda z: np.asarray(z, np.float64), "float.* not 'Ball'"),
        (lambda z: np.linalg.inv(z), "inv"),
        (lambda z: np.vectorize(erf)(z), "real number, not Ball"),
        (lambda z: z - np.floor(z), "real number, not Ball"),
        (lambda z: np.nan_to_num(z), "nan_to_num"),
        (lambda z: torch.as_tensor(z), "object"),
        (lambda z: np.where(np.exp(z) == np.exp(2 * z) * np.exp(-z), z, -z), "undecided comparison"),
    ],
)
def test_subject_that_cannot_run_is_refused_with_its_cause(f, cause):
    with pytest.raises(NotPerturbable, match=rf"(?s){cause}"):
        exact(f, z=np.eye(2) + 0.5)


def test_without_flint_it_says_what_to_install():
    code = (
        "import sys; sys.modules['flint'] = None\n"
        "import numpy as np, oracles.exact.ball_arithmetic as b, oracles.rule as r\n"
        "try: b.ball_arithmetic(r.Rule(lambda z: (z, None)))(z=np.ones(1))\n"
        "except r.NotPerturbable as error: print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'manual-bp[exact]'" in printed
