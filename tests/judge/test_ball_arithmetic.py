"""The exact oracle: its enclosures hold the truth, its radius holds the rounding, and what it cannot see it refuses."""

import subprocess
import sys
from fractions import Fraction
from math import erf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import manual_bp as m
from oracles.ball_arithmetic import ball_arithmetic, enclosure_and_radius, rounding_radius
from oracles.finite_difference import finite_difference
from oracles.jax_vjp import jax_vjp
from oracles.rounding import MORE_SAMPLES, named_outputs, rounding_at
from oracles.rule import Opaque, Rule, manual_layer, manual_loss, outputs
from oracles.torch_autograd import torch_autograd

torch = pytest.importorskip("torch")
pytest.importorskip("flint", reason='pip install "manual-bp[exact]"')

RNG = np.random.default_rng(5)
N = RNG.standard_normal


def rule(f):
    return Rule(lambda **primals: (f(**primals), lambda delta: {}), f.__name__)


def exact(f, delta=None, **primals):
    y, pullback = ball_arithmetic(rule(f))(**primals)
    return pullback(np.ones(np.shape(y)) if delta is None else delta)


def conv_loops(z, W):
    y = np.empty((z.shape[0] - 1, z.shape[1] - 1), z.dtype)
    for i, j in np.ndindex(*y.shape):
        y[i, j] = np.sum(z[i : i + 2, j : j + 2] * W)
    return y


def layer_norm(z, g):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5) * g


def softmax(z):
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def attention(q, k, v):
    s = q @ k.T / np.sqrt(q.shape[-1])
    return softmax(np.where(np.tril(np.ones(s.shape, bool)), s, -np.inf)) @ v


def lstm(z, W):
    h, c = np.zeros_like(z[0]), np.zeros_like(z[0])
    for row in z:
        i, f, o, g = np.split(np.concatenate([row, h]) @ W, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    return h


def in_place(z):
    y = z.copy()
    y -= y.mean()
    y[0] += 1
    np.multiply(y, z, out=y)
    return y + z


def scattered(z, i):
    y = np.zeros_like(z)
    np.add.at(y, i, z)
    return y


WINDOWS = np.lib.stride_tricks.sliding_window_view
FORWARDS = {
    "dense": (lambda z, W, b: np.maximum(z @ W + b, 0), {"z": (3, 4), "W": (4, 2), "b": (2,)}),
    "convolution by loops": (conv_loops, {"z": (4, 4), "W": (2, 2)}),
    "convolution by windows": (
        lambda z, W: np.tensordot(WINDOWS(np.pad(z, 1), (2, 2)), W, 2),
        {"z": (3, 3), "W": (2, 2)},
    ),
    "max pool": (lambda z: z.reshape(2, 2, 2, 2).max(axis=(1, 3)), {"z": (4, 4)}),
    "layer norm": (layer_norm, {"z": (3, 4), "g": (4,)}),
    "batch norm": (lambda z: (z - np.mean(z, axis=0)) / np.sqrt(np.var(z, axis=0) + 1e-5), {"z": (4, 3)}),
    "softmax": (softmax, {"z": (3, 4)}),
    "log-softmax": (log_softmax, {"z": (3, 4)}),
    "log-sum-exp": (lambda z: np.logaddexp.reduce(z, axis=-1), {"z": (3, 4)}),
    "cross-entropy": (lambda z, i: -np.mean(log_softmax(z)[np.arange(3), i]), {"z": (3, 4), "i": [0, 3, 3]}),
    "gelu": (lambda z: 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))), {"z": (2, 3)}),
    "softplus": (lambda z: np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0), {"z": (2, 3)}),
    "softplus by logaddexp": (lambda z: np.logaddexp(z, 0), {"z": (2, 3)}),
    "attention": (attention, {"q": (3, 2), "k": (3, 2), "v": (3, 2)}),
    "lstm": (lstm, {"z": (3, 2), "W": (4, 8)}),
    "embedding": (lambda E, i: E[i], {"E": (4, 2), "i": [1, 1, 0]}),
    "rms norm": (lambda z: z * (np.mean(np.square(z), -1, keepdims=True) + 1e-6) ** -0.5, {"z": (2, 4)}),
    "huber": (lambda z: np.where(np.abs(z) <= 1, 0.5 * z**2, np.abs(z) - 0.5).sum(), {"z": (2, 4)}),
    "hinge": (lambda z: np.clip(1 - z, 0, None).mean(), {"z": (2, 4)}),
    "cosine": (lambda a, b: np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b)), {"a": (3,), "b": (3,)}),
    "distances": (lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)), {"a": (3, 2), "b": (2, 2)}),
    "in place": (in_place, {"z": (4,)}),
    "einsum": (lambda a, b: np.einsum("ij,kj->ik", a, b), {"a": (2, 3), "b": (4, 3)}),
    "cumulative sum": (lambda z: np.cumsum(z, axis=-1), {"z": (2, 3)}),
    "prelu": (lambda z, a: np.where(z > 0, z, a * z), {"z": (2, 3), "a": (3,)}),
    "dropout": (lambda z, mask: z * mask / 0.8, {"z": (2, 4), "mask": [0, 1, 1, 0]}),
    "unit rows": (lambda z: z / np.linalg.norm(z, axis=-1, keepdims=True), {"z": (2, 3)}),
    "sorted": (lambda a, b: np.stack([np.take_along_axis(a, np.argsort(a), -1), b]).prod(0), {"a": (3,), "b": (3,)}),
    "scattered": (scattered, {"z": (3, 2), "i": [0, 0, 2]}),
    "two outputs": (lambda z: (np.sort(z), np.sign(z) * np.sqrt(np.abs(z)) / (2 + z.astype(float).std())), {"z": (4,)}),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_hand_written_forwards_agree_with_their_finite_differences(name):
    f, shapes = FORWARDS[name]
    primals = {n: N(s) if isinstance(s, tuple) else np.array(s) for n, s in shapes.items()}
    y, pullback = ball_arithmetic(rule(f))(**primals)
    delta = tuple(map(N, map(np.shape, y))) if isinstance(y, tuple) else N(np.shape(y))
    found, seen = pullback(delta), finite_difference(rule(f))(**primals)[1](delta)
    assert found.keys() == seen.keys()
    for name, (mid, radius) in found.items():
        assert mid.shape == radius.shape == primals[name].shape
        assert np.all(np.abs(mid - seen[name].mid) <= radius + seen[name].radius)
        assert np.all(radius <= np.spacing(np.abs(mid)))
    allowed = rounding_radius(rule(f), primals, delta, "float64")
    for name, part in named_outputs(outputs(f(**primals)), {}).items():
        assert np.all(np.abs(part - named_outputs(outputs(y), {})[name]) <= allowed[name])


@pytest.mark.parametrize("power", [3, 2.0, -1, 0, 0.5, 1.5, Fraction(2)])
@given(z=st.floats(2**-10, 2**10), delta=st.floats(-4, 4))
def test_powers_against_the_closed_form(power, z, delta):
    from flint import arb, ctx, fmpq

    with ctx.workprec(400):
        p = arb(fmpq(Fraction(power).numerator, Fraction(power).denominator))
        truth = arb(delta) * p * arb(z) ** (p - 1)
        found = exact(lambda z: z**power, np.array(delta), z=np.array(z))["z"]
        assert abs(truth - found.mid.item()).abs_lower() <= found.radius.item()


UFUNCS = "exp exp2 expm1 log log2 log10 log1p sqrt cbrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arctanh"


@pytest.mark.parametrize("name", [*UFUNCS.split(), "arccosh", "square", "reciprocal", "fabs"])
def test_ufuncs_against_their_finite_differences(name):
    def f(z):
        return getattr(np, name)(z + (1.5 if name == "arccosh" else 0))

    z, delta = RNG.uniform(0.2, 0.8, 3), N(3)
    seen = finite_difference(rule(f))(z=z)[1](delta)["z"]
    mid, radius = exact(f, delta, z=z)["z"]
    assert np.all(np.abs(mid - seen.mid) <= radius + seen.radius)
    assert np.all(radius <= np.spacing(np.abs(mid)))


def test_it_proves_what_torch_and_jax_lose():
    jnp = pytest.importorskip("jax.numpy")
    z, one = np.array([-40.0]), np.ones(1)
    found = exact(lambda z: np.expm1(z), z=z)["z"]
    assert 4.248e-18 < found.mid[0] < 4.249e-18
    assert found.radius[0] < 1e-33
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
    mid, radius = exact(f, z=np.zeros(2))["z"]
    assert np.all(mid == slope)
    assert np.all(radius == 0)


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
    mid, radius = exact(lambda z: z * z, z=z)["z"]
    assert np.all(np.abs(mid - 2 * z.astype(np.longdouble)) <= radius)
    if dtype != np.longdouble:
        assert np.all(radius == 0)


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
def test_what_cannot_run_is_refused_with_its_cause(f, cause):
    with pytest.raises(Opaque, match=rf"(?s){cause}"):
        exact(f, z=np.eye(2) + 0.5)


def test_without_flint_it_says_what_to_install():
    code = (
        "import sys; sys.modules['flint'] = None\n"
        "import numpy as np, oracles.ball_arithmetic as b, oracles.rule as r\n"
        "try: b.ball_arithmetic(r.Rule(lambda z: (z, None)))(z=np.ones(1))\n"
        "except r.Opaque as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'pip install "manual-bp[exact]"' in said


def subjects(n, k, classes):
    """Every layer and loss of manual_bp, with the shapes of its primals."""
    for layer in (m.Identity(), m.ReLU(), m.LeakyReLU(), m.Sigmoid(), m.Tanh(), m.Softmax()):
        yield manual_layer(layer), {"z": (3, n)}, 1
    yield manual_layer(m.Linear(n, k)), {"z": (3, n), "W": (n, k), "b": (1, k)}, 1
    for reduction in ("sum", "mean", "none"):
        yield manual_loss(m.HalfSquaredError(reduction)), {"y": (3, n), "target": (3, n)}, 1
        if n > 1:
            cross_entropy = m.SoftmaxCrossEntropy(reduction)
            yield manual_loss(cross_entropy), {"y": (3, n), "target": (3, n)}, 1
            # (e_k − r − 1)/(1 + r) rounds six times where the sweep through the forward rounds twice.
            yield manual_loss(cross_entropy, classes % n), {"y": (3, n)}, 2
    networks = (
        m.Sequential(m.Linear(n, k), m.Tanh(), m.Linear(k, n), m.Sigmoid()),
        m.Sequential(m.Linear(n, k), m.ReLU(), m.Linear(k, n), m.LeakyReLU(), m.Softmax()),
    )
    for network in networks:
        shapes = {name: p.shape for name, p in network.init(np.random.default_rng(0)).items()}
        yield manual_layer(network), {"z": (3, n), **shapes}, 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(deadline=None)
@given(
    n=st.integers(1, 6),
    k=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    magnitude=st.sampled_from([1e-3, 1.0, 30.0, 1e4]),
)
def test_all_of_manual_bp_is_within_the_radius(dtype, n, k, seed, magnitude):
    rng = np.random.default_rng(seed)
    for subject, shapes, evaluations in subjects(n, k, rng.integers(0, 8, 3)):
        primals = {name: (rng.standard_normal(s) * magnitude).astype(dtype) for name, s in shapes.items()}
        y, pullback = subject(**primals)
        delta = np.asarray(rng.standard_normal(np.shape(y))).astype(dtype)
        truth, radius = enclosure_and_radius(subject, primals, delta, dtype)
        for name, value in named_outputs(outputs(np.asarray(y)), pullback(delta)).items():
            error = np.abs(value.astype(np.float64) - truth[name].mid)
            assert np.all(error <= evaluations * radius[name]), (subject.name, name, np.max(error / radius[name]))


def layer_norm_torch(z, g):
    return (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * g


def network(z, W, V):
    return softmax(np.tanh(z @ W) @ V)


@settings(deadline=None)
@given(
    n=st.sampled_from([1, 2, 3, 6]),
    seed=st.integers(0, 2**32 - 1),
    shift=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_torch_is_within_the_radius(n, seed, shift):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((3, n)) + shift
    W, V = rng.uniform(-1, 1, (n, 4)) / n, rng.standard_normal((4, 3))  # not saturated: see the next test
    points = [
        (softmax, lambda z: z.softmax(-1), {"z": z}),
        (layer_norm, layer_norm_torch, {"z": z, "g": rng.standard_normal(n)}),
        (network, lambda z, W, V: ((z @ W).tanh() @ V).softmax(-1), {"z": z / (2 + shift), "W": W, "V": V}),
    ]
    for f, reference, primals in points:
        y, pullback = torch_autograd(reference)(**primals)
        delta = rng.standard_normal(y.shape)
        truth, radius = enclosure_and_radius(rule(f), primals, delta, "float64")
        for name, value in named_outputs(outputs(y), pullback(delta)).items():
            assert np.all(np.abs(value - truth[name].mid) <= radius[name]), (f.__name__, name)


def test_the_usual_backward_of_a_saturated_tanh_is_beyond_the_radius():
    z = np.array([8.0, 9.5, -12.0], np.float32)
    truth, radius = enclosure_and_radius(rule(lambda z: np.tanh(z)), {"z": z}, np.ones(3, np.float32), "float32")
    usual = 1 - np.tanh(z) ** 2
    assert np.all(np.abs(usual - truth["z"].mid) > 10 * radius["z"])
    kept = m.Tanh().derivative(z)
    assert np.all(np.abs(kept - truth["z"].mid) <= radius["z"])


def test_a_comparison_that_rounding_can_turn_counts_both_ways():
    z, W = np.array([[1.0, -1.0]]), np.array([[0.1], [0.1 + 1e-9]])
    radius = rounding_radius(rule(lambda z, W: np.maximum(z @ W, 0)), {"z": z, "W": W}, np.ones((1, 1)), "float32")
    assert np.all(radius["W"] >= 1)
    fine = rounding_radius(rule(lambda z, W: np.maximum(z @ W, 0)), {"z": z, "W": W}, np.ones((1, 1)), "float64")
    assert np.all(fine["W"] < 1e-14)


def softmax_jax(z):
    import jax

    return jax.nn.softmax(z, -1)


def layer_norm_jax(z, g):
    import jax.numpy as jnp

    return (z - z.mean(-1, keepdims=True)) / jnp.sqrt(z.var(-1, keepdims=True) + 1e-5) * g


@pytest.mark.parametrize("precision", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("f", "reference"), [(softmax, softmax_jax), (layer_norm, layer_norm_jax)])
def test_the_radius_and_the_injected_noise_are_consistent(f, reference, precision):
    """In the median over the entries the two allowances are within a factor of 16 of each other."""
    pytest.importorskip("jax")
    primals = {"z": N((3, 5))} | ({"g": N(5)} if f is layer_norm else {})
    delta, lifted = N((3, 5)), jax_vjp(reference)
    radius = rounding_radius(rule(f), primals, delta, precision)
    allowed = rounding_at([lifted], primals, delta, precision, fallback=lifted).allowance(MORE_SAMPLES)
    assert radius.keys() == allowed.keys()
    for name in radius:
        ratio = np.median(radius[name] / allowed[name])
        assert 1 / 16 < ratio < 16, (name, ratio)
