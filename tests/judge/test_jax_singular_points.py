"""At poles, zeros and infinities NumPy evaluates a reference to what XLA does, NaN included, and complex ones too."""

import warnings

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
import jax.scipy.special as js  # noqa: E402
from jax import lax, nn  # noqa: E402
from xla_comparison import disagreements, draw, parts  # noqa: E402

from oracles import check, manual  # noqa: E402
from oracles.backends.jax_reference import jax_vjp  # noqa: E402

INF, NAN = np.inf, np.nan
# No subnormal numbers: XLA flushes them to zero.
POINTS = np.array([0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, 2.0, 1e-300, 1e300, -1e300, 0.5, -3.0])
ROWS = np.array([[0.0, 0.0, 0.0], [-INF, 0.0, 1.0], [-INF, -INF, -INF], [INF, 1.0, -INF], [-2.0, 0.0, 2.0]])
Y = np.roll(POINTS, 1)


def named(module, names, points=POINTS):
    return [(getattr(module, n), {"x": points}) for n in names.split()]


def of_two(f):
    return lambda x, y: f(x, y)


ONE = [
    *named(jnp, "sqrt log log1p arcsin arccos arctanh arccosh exp expm1 log2 cbrt tanh sign abs nan_to_num arctan"),
    *named(nn, "relu gelu silu softplus sigmoid log_sigmoid elu leaky_relu soft_sign mish"),
    *named(js, "erf erfinv gammaln digamma expit logit log_ndtr ndtri i0 gamma entr", POINTS[np.abs(POINTS) != 1e300]),
    (lax.rsqrt, {"x": POINTS}),
    (lambda x: jnp.where(x > 0, jnp.log(x), 0.0), {"x": POINTS}),
    (lambda x: jnp.clip(x, -1, 1) + jnp.mod(x, 2.0), {"x": POINTS}),
    (lambda x: js.polygamma(1, x), {"x": np.array([0.0, -1.0, 0.5, 2.0, INF])}),
    (lambda x: js.polygamma(2, x), {"x": np.array([0.0, -1.0, 0.5, 2.0, INF])}),
    (lambda x: js.zeta(x, 1.0), {"x": np.array([1.5, 2.0, 30.0, 1.0])}),
    (lambda x: js.betainc(2.0, 3.0, x), {"x": np.array([0.0, 1.0, 0.5])}),
    (lambda x: js.gammainc(2.0, x), {"x": np.array([0.0, 1.0, INF])}),
]
ROW_FUNCTIONS = [
    lambda x: jnp.linalg.norm(x, axis=-1), lambda x: jnp.linalg.norm(x, ord=1, axis=-1),
    lambda x: jnp.linalg.norm(x, ord=INF, axis=-1), lambda x: jnp.linalg.norm(x, ord=3, axis=-1),
    lambda x: js.logsumexp(x, axis=-1), lambda x: js.logsumexp(x, axis=-1, b=jnp.array([1.0, 0.0, -1.0])),
    nn.softmax, nn.log_softmax, lambda x: nn.softmax(x, where=jnp.isfinite(x)), lambda x: lax.cumlogsumexp(x, 1),
    lambda x: nn.softmax(jnp.where(jnp.arange(3) < 0, x, -INF)), lambda x: x.max(-1) + x.min(-1), lambda x: x.var(-1),
    lambda x: x.sum(-1), lambda x: jnp.sort(x) + jnp.cumsum(x, -1), lambda x: lax.top_k(x, 2)[0],
    lambda x: x @ jnp.array([0.0, 1.0, -1.0]),
    lambda x: lax.reduce_window(x, -INF, lax.max, (1, 2), (1, 1), "VALID"),
]  # fmt: skip
PAIRS = [
    (js.xlogy, [0.0, 0.0, 0.0, 1.0, -1.0, 0.0], [0.0, 1.0, -1.0, 0.0, 0.0, INF]),
    (js.xlog1py, [0.0, 0.0, 0.0, 1.0, -1.0, 0.0], [-1.0, 1.0, -2.0, -1.0, 0.0, INF]),
    (js.kl_div, [0.0, 0.0, 1.0, 0.5, -1.0], [0.0, 1.0, 0.0, 0.5, 1.0]),
    (js.rel_entr, [0.0, 0.0, 1.0, 0.5, -1.0], [0.0, 1.0, 0.0, 0.5, 1.0]),
    (jnp.arctan2, [0.0, -0.0, 0.0, -0.0, 1.0, INF, INF, -INF], [0.0, 0.0, -0.0, -0.0, 0.0, INF, -INF, 1.0]),
    (jnp.power, [0.0, 0.0, 0.0, -2.0, -2.0, INF, 1.0, -INF, -0.0], [0.0, 1.0, -1.0, 2.0, 0.5, 0.0, NAN, 3.0, -3.0]),
    (jnp.logaddexp, POINTS, Y),
    (jnp.hypot, POINTS[:9], Y[:9]),
    (jnp.divide, POINTS[:8], Y[:8]),
    (jnp.multiply, POINTS, Y),
    (jnp.maximum, POINTS, Y),
]
CASES = [
    *ONE,
    *((f, {"x": ROWS}) for f in ROW_FUNCTIONS),
    *((of_two(f), {"x": np.array(x), "y": np.array(y)}) for f, x, y in PAIRS),
    (lambda x: lax.reduce_window(x, -INF, lax.max, (2,), (1,), "VALID"), {"x": np.array([NAN, 0.0, 1.0, NAN, -INF])}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("f", "at"), CASES)
def test_singular_points_give_what_xla_gives(f, at):
    at = {n: np.array(a, np.float64) for n, a in at.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule = jax_vjp(f)
        (y, pull), (y_xla, pull_xla) = rule(**at), jax_vjp(f, through="xla")(**at)
        deltas = tuple(np.ones_like(part) for part in parts(y))
        delta = deltas if isinstance(y, tuple) else deltas[0]
        pairs = [*zip(parts(y), parts(y_xla), strict=True)]
        gradients, expected = pull(delta), pull_xla(delta)
    pairs += [(gradients[n], expected[n]) for n in expected]
    assert rule.evaluate.compilations == 0
    for a, b in pairs:
        assert np.array_equal(np.isnan(a), np.isnan(b)), (a, b)
        finite = np.isfinite(b)
        assert np.array_equal(a[~finite], b[~finite], equal_nan=True)
        # Special functions of SciPy and XLA differ in their last digits.
        assert np.all(np.abs(a[finite] - b[finite]) <= 2.0**-36 * np.abs(b[finite])), (a, b)


def back_and_forth(z, shift):
    n = z.shape[-1]
    return jnp.fft.irfft(jnp.fft.rfft(z) * jnp.exp(1j * shift * jnp.arange(n // 2 + 1)), n=n)


COMPLEX = {
    "fft": lambda z: (jnp.fft.fft(z).real, jnp.fft.fft(z).imag),
    "ifft": lambda z: jnp.fft.ifft(z, axis=0).imag + jnp.fft.ifft(z, axis=0).real,
    "rfft": lambda z: jnp.abs(jnp.fft.rfft(z)),
    "irfft": lambda z: back_and_forth(z, 0.3),
    "fft2": lambda z: jnp.abs(jnp.fft.fft2(z)) ** 2,
    "rfftn": lambda z: jnp.fft.rfftn(z).real + jnp.fft.rfftn(z).imag,
    "irfft2": lambda z: jnp.fft.irfft2(jnp.fft.rfft2(z) ** 2, z.shape),
    "hfft": lambda z: jnp.fft.hfft(z + 1j * z[::-1], n=2 * z.shape[1]),  # of one entry, the default n is 0
    "padded": lambda z: jnp.fft.irfft(jnp.fft.rfft(z, n=2 * z.shape[1]) ** 2, n=2 * z.shape[1])[:, : z.shape[1]],
    "angle": lambda z: jnp.angle(jnp.fft.fft(z, axis=0)),
    "log": lambda z: jnp.log(jnp.fft.fft(z, axis=0)).real,
    "sqrt": lambda z: jnp.sqrt(jnp.fft.fft(z)).real,
    "einsum": lambda z: jnp.einsum("ij,kj->ik", jnp.fft.fft(z), jnp.fft.fft(z).conj()).real,
    "divide": lambda z: (1 / jnp.fft.fft(z)).imag,
    "power": lambda z: ((z + 1j) ** 3).imag + jnp.power(z + 1j, 2.5).real,
    "tanh": lambda z: jnp.tanh(z + 1j * z).real + jnp.exp(1j * z).real * jnp.sin(1j * z).imag,
    "sign": lambda z: jnp.sign(jnp.fft.fft(z)).real,
    "moved": lambda z: jnp.where(z > 0, z * 1j, z + 1j).imag.cumsum(0) + (z + 1j * z).T.reshape(z.shape).real,
    "products": lambda z: (z + 1j * z[::-1]).prod(0).real + (z - 2j).sum(0).imag,
    "norm": lambda z: jnp.linalg.norm(z + 1j * z[::-1], axis=1),
    "shifted": lambda z: jnp.fft.fftshift(jnp.fft.fft(z)).real[1:, :3],
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 8), (2, 15), (1, 1)])
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_intermediates_agree_with_xla(name, shape):
    f = COMPLEX[name]
    rule = jax_vjp(lambda z: f(z))
    assert disagreements(f, draw({"z": shape}), rule=rule) == []
    assert rule.evaluate.compilations == 0


def test_complex_outputs_are_two_real_ones():
    for through in ("numpy", "xla"):
        y, pullback = jax_vjp(jnp.fft.fft, through=through)(a=np.arange(4.0))
        assert y.names == ("output.real", "output.imag")
        np.testing.assert_array_equal(y[0] + 1j * y[1], [6, -2 + 2j, -2, -2 - 2j])
        np.testing.assert_array_equal(pullback((np.eye(4)[1], np.zeros(4)))["a"], [1, 0, -1, 0])


def spectrum(z):
    y = jnp.fft.fft(z)
    return y.real, y.imag


def spectrum_by_numpy(backward):
    def forward(z):
        y = np.fft.fft(z)
        return (y.real.astype(z.dtype), y.imag.astype(z.dtype)), z

    return manual(forward, lambda z, delta: {"z": backward(delta[0] + 1j * delta[1], len(z)).astype(z.dtype)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [8, 13, 64])
def test_right_fourier_code_agrees_and_wrong_code_does_not(n, dtype):
    z = {"z": np.random.default_rng(n).standard_normal(n).astype(dtype)}
    right = spectrum_by_numpy(lambda d, n: (np.fft.ifft(d) * n).real)
    assert check(right, z, [jax_vjp(spectrum)]).verdict == "agrees"
    for wrong in (lambda d, n: np.fft.fft(d).real, lambda d, n: np.fft.ifft(d).real):
        with pytest.raises(AssertionError) as excinfo:
            check(spectrum_by_numpy(wrong), z, [jax_vjp(spectrum)])
        assert excinfo.value.verdict == "wrong"
