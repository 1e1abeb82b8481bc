"""Pairs that need an adapter's or a declaration's help: symmetric matrices, signs, accuracy by norm, decorators."""

import functools

import numpy as np
import torch
from hypothesis import strategies as st

import oracles
from oracles.strategies import real

from .pairs import at_point, in_search

RNG = np.random.default_rng(8)


def spd(*shape):
    """Symmetric positive definite matrices."""
    a = np.random.default_rng(3).standard_normal(shape)
    return a @ np.swapaxes(a, -1, -2) + shape[-1] * np.eye(shape[-1])


# --- Cholesky and eigh: NumPy reads one triangle, and the gradient may be given for either or both ---


def phi(matrix, half=0.5):
    """The lower triangle with its diagonal halved."""
    lower = np.tril(matrix)
    return lower - (1 - half) * np.tril(np.triu(lower))


CONVENTIONS = {
    "raw": lambda g: g,
    "symmetric": lambda g: (g + np.swapaxes(g, -1, -2)) / 2,
    "lower": lambda g: np.tril(g + np.swapaxes(g, -1, -2)) - np.tril(np.triu(g)),
}


def cholesky(convention="raw", half=0.5):
    def forward(A):
        factor = np.linalg.cholesky(A)
        return factor, factor

    def backward(factor, delta):
        inner = phi(np.swapaxes(factor, -1, -2) @ np.tril(delta), half)
        inverse = np.linalg.inv(factor)
        return {"A": CONVENTIONS[convention](np.swapaxes(inverse, -1, -2) @ inner @ inverse)}

    return oracles.declared(oracles.manual(forward, backward, name="cholesky"), symmetric="A")


CHOLESKY = oracles.torch_autograd(torch.linalg.cholesky)
for convention in CONVENTIONS:
    at_point(
        f"cholesky, phi's diagonal not halved ({convention})",
        cholesky(convention, half=1.0),
        cholesky(convention),
        {"A": spd(4, 4)},
        [CHOLESKY],
    )
at_point("cholesky of a batch", cholesky("lower", half=1.0), cholesky("lower"), {"A": spd(2, 3, 3)}, [CHOLESKY])
at_point("cholesky, no reference", cholesky("raw", half=1.0), cholesky("raw"), {"A": spd(3, 3)})


def quadratic_form(double):
    """xᵀ A x, whose gradient is given for the lower triangle."""

    def backward(saved, delta):
        A, x = saved
        outer = delta * np.outer(x, x)
        dA = np.tril(outer) + (np.tril(outer, -1) if double else 0)
        return {"A": dA.astype(A.dtype), "x": (delta * (A + A.T) @ x).astype(A.dtype)}

    rule = oracles.manual(lambda A, x: (x @ A @ x, (A, x)), backward, name="quadratic form")
    return oracles.declared(rule, symmetric="A")


@st.composite
def quadratic_forms(draw, subject):
    n = draw(st.integers(1, 5))
    reference = lambda A, x: x @ A @ x  # noqa: E731
    return oracles.Case(subject, {"A": real(n, n), "x": real(n)}, torch=reference, jax=reference)


in_search("a triangle that is not doubled", quadratic_form(False), quadratic_form(True), quadratic_forms)


def eigh(convention="raw", *, flip=1.0, error=1.0, same_sign=True):
    """Eigenvalues and eigenvectors, of which those of odd index have another sign than LAPACK's."""

    def forward(A):
        values, vectors = np.linalg.eigh(A)
        vectors = (vectors * np.where(np.arange(A.shape[-1]) % 2, flip, 1.0)).astype(A.dtype)
        return (values, vectors), (values, vectors)

    def backward(saved, delta):
        values, V = saved
        d_values, d_vectors = delta
        gaps = values[None, :] - values[:, None]
        F = np.where(gaps == 0, 0.0, 1 / np.where(gaps == 0, 1, gaps)).astype(values.dtype)
        inner = np.diag(d_values) + error * F * (V.T @ d_vectors)
        return {"A": CONVENTIONS[convention]((V @ inner @ V.T).astype(values.dtype))}

    rule = oracles.manual(forward, backward, name="eigh")
    return oracles.declared(rule, symmetric="A", gauge={"output[1]": "sign"})


EIGH = oracles.torch_autograd(lambda A: tuple(torch.linalg.eigh(A)))
for convention in CONVENTIONS:
    at_point(
        f"eigh, a factor in the eigenvectors' part ({convention})",
        eigh(convention, flip=-1.0, error=1.01),
        eigh(convention, flip=-1.0),
        {"A": spd(4, 4)},
        [EIGH],
    )
at_point("eigh in float32", eigh(flip=-1.0, error=1.01), eigh(flip=-1.0), {"A": spd(3, 3).astype("f")}, [EIGH])
at_point("eigh, no reference", eigh(flip=-1.0, error=1.01), eigh(flip=-1.0), {"A": spd(3, 3)})
at_point(
    "eigh, vectors that are no eigenvectors up to sign",
    eigh(flip=2.0),
    eigh(flip=-1.0),
    {"A": spd(3, 3)},
    [EIGH],
)


def svd(flip_rows=True, error=1.0):
    """U, s, Vᵀ with the last vectors' signs turned: in both, or in U alone, where U s Vᵀ is another matrix."""

    def forward(A):
        U, s, Vt = np.linalg.svd(A, full_matrices=False)
        turned = np.where(np.arange(len(s)) == len(s) - 1, -1, 1).astype(A.dtype)
        U, Vt = U * turned, Vt * turned[:, None] if flip_rows else Vt
        return (U, s, Vt), (U, s, Vt)

    def backward(saved, delta):
        U, s, Vt = saved
        dU, ds, dVt = delta
        E = s[None, :] ** 2 - s[:, None] ** 2 + np.eye(len(s))
        off = (1 - np.eye(len(s))) / E
        skew_u, skew_v = U.T @ dU, Vt @ dVt.T
        J = off * (skew_u - skew_u.T)
        K = off * (skew_v - skew_v.T)
        inner = J * s[None, :] + s[:, None] * K + np.diag(ds)
        dA = U @ inner @ Vt + ((dU - U @ (U.T @ dU)) / s) @ Vt
        return {"A": (error * dA).astype(s.dtype)}

    rule = oracles.manual(forward, backward, name="svd")
    return oracles.declared(rule, gauge={"output[0]": "sign", "output[2]": "sign of rows"})


SVD = oracles.torch_autograd(lambda A: tuple(torch.linalg.svd(A, full_matrices=False)))
TALL = RNG.standard_normal((5, 3))
at_point("svd, a factor", svd(error=1.01), svd(), {"A": TALL}, [SVD])
at_point("svd in float32, a factor", svd(error=1.01), svd(), {"A": TALL.astype("f")}, [SVD])
at_point("svd, signs that differ between U and Vᵀ", svd(flip_rows=False), svd(), {"A": TALL}, [SVD])

# --- Convolutions that are accurate by norm ---

TRANSFORMS = {
    2: (
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
        np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
    ),
    4: (
        np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1],
            ]
        ),
        np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
        np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
    ),
}


def winograd(size, error=1.0):
    """F(size, 3): tiles of ``size`` correlations with three weights; z is (N, n), w is (3,)."""
    B, G, A = TRANSFORMS[size]

    def matrices(dtype):
        return B.astype(dtype), G.astype(dtype), A.astype(dtype)

    def tiles(z):
        count = (z.shape[-1] - 2) // size
        return np.stack([z[:, i * size : i * size + size + 2] for i in range(count)], axis=1)

    def forward(z, w):
        b, g, a = matrices(z.dtype)
        y = ((tiles(z) @ b.T) * (g @ w)) @ a.T
        return y.reshape(len(z), -1), (z, w)

    def backward(saved, delta):
        z, w = saved
        b, g, a = matrices(z.dtype)
        back = delta.reshape(len(z), -1, size) @ a
        parts, dz = (back * (g @ w)) @ b, np.zeros_like(z)
        for i in range(parts.shape[1]):
            dz[:, i * size : i * size + size + 2] += parts[:, i]
        return {"z": dz, "w": (error * (g.T @ (back * (tiles(z) @ b.T)).sum((0, 1)))).astype(w.dtype)}

    return oracles.declared(oracles.manual(forward, backward, name="winograd"), accuracy="normwise")


def fft(conjugated=False):
    """The correlation of z (N, n) and w (k,) by the fast Fourier transform."""

    def forward(z, w):
        spectrum = np.fft.rfft(z) * np.conj(np.fft.rfft(w, z.shape[-1]))
        return np.fft.irfft(spectrum, z.shape[-1])[:, : z.shape[-1] - len(w) + 1].astype(z.dtype), (z, w)

    def backward(saved, delta):
        z, w = saved
        n = z.shape[-1]
        back, weights = np.fft.rfft(delta, n), np.fft.rfft(w, n)
        dz = np.fft.irfft(back * (np.conj(weights) if conjugated else weights), n)
        dw = np.fft.irfft(np.conj(back) * np.fft.rfft(z), n).sum(0)[: len(w)]
        return {"z": dz.astype(z.dtype), "w": dw.astype(w.dtype)}

    return oracles.declared(oracles.manual(forward, backward, name="fft"), accuracy="normwise")


CONV = oracles.torch_autograd(lambda z, w: torch.nn.functional.conv1d(z[:, None], w[None, None])[:, 0])


def signals(dtype, n):
    rng = np.random.default_rng(n)
    z = rng.standard_normal((2, n))
    z[:, n // 2] *= 1e3  # one large term: its rounding is spread over the entries of a transform
    return {"z": z.astype(dtype), "w": rng.standard_normal(3).astype(dtype)}


for dtype in ("float32", "float64"):
    for size in (2, 4):
        at_point(
            f"winograd F({size}, 3), a factor ({dtype})",
            winograd(size, 1.01),
            winograd(size),
            signals(dtype, 34),
            [CONV],
        )
    at_point(f"convolution by fft, conjugated ({dtype})", fft(conjugated=True), fft(), signals(dtype, 64), [CONV])

# --- Decorators, options, longdouble, arguments that are no primals ---


def traced(f):
    def wrap(*args, **kwargs):
        return f(*args, **kwargs)

    return wrap


def tanh_class(power):
    class Tanh:
        @traced
        def forward(self, input_data):
            self.y = np.tanh(input_data)
            return self.y

        @traced
        def backward(self, delta):
            return delta * (1 - self.y**power)

    return oracles.stateful(Tanh)


TANH = oracles.torch_autograd(torch.tanh)
at_point("a class with wrapped methods", tanh_class(3), tanh_class(2), {"x": RNG.standard_normal((2, 3))}, [TANH])
at_point(
    "a class in longdouble",
    tanh_class(3),
    tanh_class(2),
    {"x": RNG.standard_normal((2, 3)).astype(np.longdouble)},
    [TANH],
)


def scaled_power(factor):
    class ScaledPower(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, power=2, bias=None, scale=1.0):
            ctx.save_for_backward(x)
            ctx.power, ctx.scale = power, scale
            return scale * x**power if bias is None else scale * x**power + bias

        @staticmethod
        def backward(ctx, delta):
            (x,) = ctx.saved_tensors
            return delta * factor * ctx.scale * ctx.power * x ** (ctx.power - 1), None, None, None

    return oracles.torch_function(ScaledPower, options={"scale": 3.0})


CUBE = oracles.torch_autograd(lambda x: 3 * x**2)
at_point("options of a Function", scaled_power(1.01), scaled_power(1.0), {"x": RNG.standard_normal(4)}, [CUBE])


def jax_power(factor):
    import jax

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0, 2))
    def power(n, x, scale=1.0):
        return scale * x**n

    def fwd(n, x, scale):
        return power(n, x, scale), x

    power.defvjp(fwd, lambda n, scale, x, delta: (delta * factor * scale * n * x ** (n - 1),))
    return oracles.jax_function(functools.partial(power, 2, scale=3.0))


at_point("nondiff_argnums bound by partial", jax_power(1.01), jax_power(1.0), {"x": RNG.standard_normal(4)}, [CUBE])
