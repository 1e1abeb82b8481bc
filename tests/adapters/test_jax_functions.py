"""jax.custom_vjp: its own fwd and bwd, and `jax.vjp` of it, with and without `jax.jit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forms import as_custom_vjp
from pair_bugs import BUGS
from pairs import DTYPES, PAIRS

import oracles
from manual_bp import Linear
from oracles import Disagreement, InvalidInput, Verdict

RNG = np.random.default_rng(10)
Z = {"z": RNG.standard_normal((2, 3))}


def custom(f, fwd, bwd, **options):
    result = jax.custom_vjp(f, **options)
    result.defvjp(fwd, bwd)
    return result


def tanh_but(bwd):
    return custom(jnp.tanh, lambda z: (jnp.tanh(z), jnp.tanh(z)), bwd)


def adapt(pair, backward=None):
    return oracles.jax_function(as_custom_vjp(pair, backward))


TANH = PAIRS["tanh"].torch


def test_correct_custom_vjp_agrees():
    for dtype in ("float64", "bfloat16"):
        at = {"z": Z["z"].astype(DTYPES[dtype])}
        subject = oracles.jax_function(tanh_but(lambda y, d: (d * (1 - y * y),)))
        assert oracles.check(subject, at, [TANH]).verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("bwd", "message"),
    [
        pytest.param(lambda y, d: (d * (1 - y),), None, marks=pytest.mark.slow),
        (lambda y, d: (1 - y * y,), "ones"),
        (lambda y, d: (abs(d) * (1 - y * y),), "|delta|"),
        pytest.param(lambda y, d: (0 * d,), "zero", marks=pytest.mark.slow),
        (lambda y, d: (d * (1 - y * y) / len(y),), "0.5 times the oracle's"),
        (lambda y, d: ((d * (1 - y * y)).sum(0),), "shape (3,), expected (2, 3)"),
        (lambda y, d: ((d * (1 - y * y)).astype(jnp.float32),), "right up to float32"),
        (lambda y, d: (d * (1 - y * y), None), "bwd returned 2 cotangents for the 1 arguments z"),
    ],
)
def test_planted_bugs_are_refused(bwd, message):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.jax_function(tanh_but(bwd), name="tanh"), Z, [TANH])
    assert excinfo.value.verdict in (Verdict.WRONG, Verdict.UNSTABLE)
    assert excinfo.value.result.worst.quantity in ("z", "the call")
    assert message is None or message in " ".join(str(excinfo.value).split())


def test_fwd_that_differs_from_the_function_is_refused():
    """The function that runs without a derivative differs from the one that runs with it."""
    two = custom(jnp.tanh, lambda z: (jnp.tanh(z), jnp.tanh(z)), lambda y, d: (d * (1 - y * y),))
    assert oracles.check(oracles.jax_function(two), Z, [TANH]).verdict is Verdict.AGREES
    off = custom(lambda z: 1.001 * jnp.tanh(z), lambda z: (jnp.tanh(z), jnp.tanh(z)), lambda y, d: (d * (1 - y * y),))
    with pytest.raises(Disagreement, match=r"jax\.vjp"):
        oracles.check(oracles.jax_function(off), Z, [TANH])


@pytest.mark.slow
def test_none_claims_nothing_and_integers_have_no_gradient():
    def scaled_rows(E, s, i):
        return s * E[i]

    def bwd(saved, d):
        E, s, i = saved
        return jnp.zeros_like(E).at[i].add(s * d), None, None

    f = custom(scaled_rows, lambda E, s, i: (s * E[i], (E, s, i)), bwd)
    at = {"E": RNG.standard_normal((3, 2)), "s": np.array(0.5), "i": np.array([0, 2, 2])}
    result = oracles.check(oracles.jax_function(f), at, [oracles.torch_autograd(lambda E, s, i: s * E[i])])
    assert result.not_claimed == ("s",)
    assert result.verdict is Verdict.AGREES


def test_a_function_that_differs_under_jit_is_refused():
    """State in Python is read once, when jit traces."""
    count = []

    def fwd(z):
        count.append(1)
        return (1.0 + (len(count) > 3)) * z, ()

    f = custom(lambda z: z, fwd, lambda _, d: (d,))
    with pytest.raises(Disagreement):
        oracles.check(oracles.jax_function(f), Z, [oracles.torch_autograd(lambda z: z.clone())])


@pytest.mark.parametrize(
    ("f", "at", "message", "fix"),
    [
        (3, Z, "expected a function or a jax.custom_vjp, got 3", ""),
        (tanh_but(lambda y, d: (d,)), {"z": Z["z"], "W": Z["z"]}, "got z, W", "def tanh(z, W): ..."),
    ],
)
def test_invalid_input(f, at, message, fix):
    with pytest.raises(InvalidInput) as excinfo:
        oracles.check(oracles.jax_function(f, name="tanh"), at)
    assert message in str(excinfo.value)
    assert fix in str(excinfo.value)


@pytest.mark.deep
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_numpy_inside_a_custom_vjp_agrees(name, dtype):
    PAIRS[name].assert_agrees(adapt(PAIRS[name]), dtype, seeds=1)


@pytest.mark.deep
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_inside_a_custom_vjp_are_refused(bug):
    assert BUGS[bug].refusal_of(adapt).verdict in (Verdict.WRONG, Verdict.UNSTABLE)


OWN = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": lambda z: jax.nn.gelu(z),
    "softplus": jax.nn.softplus,
    "softmax": lambda z: jax.nn.softmax(z, -1),
    "log-softmax": lambda z: jax.nn.log_softmax(z, -1),
    "log-sum-exp": lambda z: jax.nn.logsumexp(z, -1),
    "standardize": lambda z: jax.nn.standardize(z, -1),
    "two outputs": lambda z: (jnp.sin(z), (z * z).sum()),
}


@pytest.mark.deep
# In half precision rounding reaches the whole gradient where it cancels: two standardized entries are always ±1.
@pytest.mark.filterwarnings("ignore::oracles.report.disagreement.InconclusiveWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OWN)
def test_jax_functions_agree(name, dtype):
    """As they are, and as a custom_vjp that calls JAX's own."""
    f = OWN[name]
    own = custom(f, lambda z: jax.vjp(f, z), lambda pull, d: pull(d))
    for seed, shape in enumerate([(3, 4), (1, 2)]):
        at = {"z": np.random.default_rng(seed).standard_normal(shape).astype(DTYPES[dtype])}
        for subject in (f, own):
            result = oracles.check(oracles.jax_function(subject, name=name), at, [oracles.jax_vjp(f)], seed=seed)
            assert not result.refuses


@pytest.mark.slow
def test_static_arguments_and_options():
    def scaled(n, z, low=0.0):
        return jnp.maximum(z, low) ** n

    f = custom(
        scaled,
        lambda n, z, low: (scaled(n, z, low), (z, low)),
        lambda n, saved, d: (d * n * jnp.maximum(saved[0], saved[1]) ** (n - 1) * (saved[0] > saved[1]), None),
        nondiff_argnums=(0,),
    )
    subject = oracles.jax_function(f, options={"n": 3, "low": 0.25})
    result = oracles.check(subject, Z, [oracles.torch_autograd(lambda z: z.clamp(min=0.25) ** 3)])
    assert result.verdict is Verdict.AGREES


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_our_own_linear_agrees_as_a_custom_vjp(dtype):
    layer, pair = Linear(4, 2), PAIRS["dense"]

    def ours(z, W, b):
        like = jax.ShapeDtypeStruct((z.shape[0], 2), z.dtype)
        run = lambda z, W, b: layer.forward({"W": np.asarray(W), "b": np.asarray(b)}, np.asarray(z))[0]  # noqa: E731
        return jax.pure_callback(run, like, z, W, b)

    def bwd(saved, d):
        def run(z, W, b, d):
            _, cache = layer.forward({"W": np.asarray(W), "b": np.asarray(b)}, np.asarray(z))
            dz, grads = layer.backward(cache, np.asarray(d))
            return dz, grads["W"], grads["b"]

        return jax.pure_callback(run, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), saved), *saved, d)

    f = custom(ours, lambda *saved: (ours(*saved), saved), bwd)
    assert oracles.check(oracles.jax_function(f), pair.at(2, dtype), [pair.torch]).verdict is Verdict.AGREES
