"""Linear algebra: right rules agree at well and ill conditioned points, and wrong ones are refused at the former."""

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict

torch = pytest.importorskip("torch")


def matrix(n, condition=3.0, rows=None):
    """Return a matrix with singular values from 1 to 1 / condition."""
    rng, m = np.random.default_rng(n), rows or n
    U, V = (np.linalg.qr(rng.standard_normal((k, k)))[0] for k in (m, n))
    return (U[:, :n] * np.geomspace(1, 1 / condition, n)) @ V


def spd(n, condition=3.0):
    """Return a symmetric positive definite matrix with that condition number."""
    Q = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]
    A = (Q * np.geomspace(1, 1 / condition, n)) @ Q.T
    return (A + A.T) / 2


def differences(values):
    """Return 1 / (v_j - v_i), and 0 on the diagonal."""
    gaps = values[None] - values[:, None]
    return np.divide(1.0, gaps, out=np.zeros_like(gaps), where=gaps != 0)


def inverse(A):
    X = np.linalg.inv(A)
    return X, X


def solve(A, b):
    x = np.linalg.solve(A, b)
    return x, (A, x)


def solve_back(c, d):
    g = np.linalg.solve(c[0].T, d)
    return {"A": -np.outer(g, c[1]), "b": g}


def solve_untransposed(c, d):
    g = np.linalg.solve(c[0], d)
    return {"A": -np.outer(g, c[1]), "b": g}


def cholesky(A):
    L = np.linalg.cholesky(A)
    return L, L


def cholesky_back(L, d, diagonal=0.5):
    P = np.tril(L.T @ d)
    P[np.diag_indices_from(P)] *= diagonal
    S = np.linalg.solve(L.T, np.linalg.solve(L.T, P.T).T)
    return {"A": (S + S.T) / 2}


def qr(A):
    Q, R = np.linalg.qr(A)
    return (Q, R), (Q, R)


def qr_back(c, d, mirrored=True):
    Q, R = c
    M = R @ np.triu(d[1]).T - d[0].T @ Q
    M = np.tril(M) + np.tril(M, -1).T * mirrored
    return {"A": np.linalg.solve(R, (d[0] + Q @ M).T).T}


def eigh(A):
    values, V = np.linalg.eigh(A)
    V = V * np.sign(V[0])
    return (values, V), (values, V)


def eigh_back(c, d, sign=1.0):
    return {"A": c[1] @ (np.diag(d[0]) + sign * differences(c[0]) * (c[1].T @ d[1])) @ c[1].T}


def eigh_unmasked(c, d):
    gaps = c[0][None] - c[0][:, None]
    np.fill_diagonal(gaps, 1.0)
    return {"A": c[1] @ (np.diag(d[0]) + (c[1].T @ d[1]) / gaps) @ c[1].T}


def singular_values(A):
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    return s, (U, Vt)


def svd(A):
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    signs = np.sign(U[0])
    return (U * signs, s, Vt * signs[:, None]), (U * signs, s, Vt * signs[:, None])


def svd_back(c, d, projected=True):
    U, s, Vt = c
    F = differences(s**2)
    J, K = F * (U.T @ d[0]), F * (Vt @ d[2].T)
    M = (J + J.T) * s + s[:, None] * (K + K.T) + np.diag(d[1])
    outside = (d[0] - U @ (U.T @ d[0])) / s if projected else 0 * U
    return {"A": (U @ M + outside) @ Vt}


def logdet(A):
    return np.linalg.slogdet(A)[1], A


def exponential(A):
    squarings = max(0, int(np.ceil(np.log2(np.abs(A).sum(0).max()))) + 1)
    B = A / 2.0**squarings
    X = term = np.eye(len(A))
    for i in range(1, 18):
        term = term @ B / i
        X = X + term
    for _ in range(squarings):
        X = X @ X
    return X


def exponential_back(A, d):
    block = np.block([[A.T, d], [np.zeros_like(A), A.T]])
    return {"A": exponential(block)[: len(A), len(A) :]}


def pseudo_inverse(A):
    P = np.linalg.pinv(A)
    return P, (A, P)


def pseudo_inverse_back(c, d):
    A, P = c
    inside, outside = -P.T @ d @ P.T, (np.eye(len(A)) - A @ P) @ d.T @ P @ P.T
    return {"A": inside + outside}


def root(A):
    values, U = np.linalg.eigh((A + A.T) / 2)
    s = np.sqrt(values)
    return (U * s) @ U.T, (U, s)


def root_back(c, d):
    U, s = c
    return {"A": U @ ((U.T @ (d + d.T) @ U / 2) / (s[:, None] + s)) @ U.T}


def torch_root(A):
    values, U = torch.linalg.eigh((A + A.T) / 2)
    return (U * values.sqrt()) @ U.T


def density(S, x):
    L = np.linalg.cholesky(S)
    z = np.linalg.solve(L, x)
    return -0.5 * (z @ z) - np.log(np.diag(L)).sum(), (L, z)


def density_back(c, d, half=0.5):
    a, inverse = np.linalg.solve(c[0].T, c[1]), np.linalg.inv(c[0] @ c[0].T)
    return {"S": d * (0.5 * np.outer(a, a) - half * inverse), "x": -d * a}


def torch_density(S, x):
    L = torch.linalg.cholesky(S)
    z = torch.linalg.solve_triangular(L, x[:, None], upper=False)[:, 0]
    return -0.5 * (z @ z) - torch.log(torch.diagonal(L)).sum()


def log_sum_exp(x):
    e = np.exp(x - x.max())
    return x.max() + np.log(e.sum()), e / e.sum()


def vector(n, condition=3.0):
    return np.random.default_rng(n).standard_normal(n) * (1.0 if condition < 10 else 1e-8)


SIGNS = {"gauge": {"output[1]": "sign"}, "symmetric": "A"}
SVD_SIGNS = {"gauge": {"output[0]": "sign", "output[2]": "sign of rows"}}
# name: forward, right backward, torch's function, the point for a condition number, what is declared.
RIGHT = {
    "inverse": (inverse, lambda X, d: {"A": -X.T @ d @ X.T}, torch.linalg.inv, lambda c: {"A": matrix(4, c)}, {}),
    "solve": (solve, solve_back, torch.linalg.solve, lambda c: {"A": matrix(4, c), "b": vector(4)}, {}),
    "cholesky": (cholesky, cholesky_back, torch.linalg.cholesky, lambda c: {"A": spd(4, c)}, {"symmetric": "A"}),
    "qr": (qr, qr_back, lambda A: tuple(torch.linalg.qr(A)), lambda c: {"A": matrix(3, c, 5)}, {}),
    "eigh": (eigh, eigh_back, lambda A: tuple(torch.linalg.eigh(A)), lambda c: {"A": spd(4, c)}, SIGNS),
    "singular values": (
        singular_values, lambda c, d: {"A": (c[0] * d) @ c[1]}, torch.linalg.svdvals, lambda c: {"A": matrix(4, c)}, {},
    ),
    "svd": (
        svd, svd_back, lambda A: tuple(torch.linalg.svd(A, full_matrices=False)),
        lambda c: {"A": matrix(3, min(c, 1e4), 5)}, SVD_SIGNS,
    ),
    "logdet": (
        logdet, lambda A, d: {"A": d * np.linalg.inv(A).T}, lambda A: torch.linalg.slogdet(A)[1],
        lambda c: {"A": matrix(4, c)}, {},
    ),
    "exponential": (
        lambda A: (exponential(A), A), exponential_back, torch.linalg.matrix_exp,
        lambda c: {"A": (1 if c < 10 else 4) * np.random.default_rng(2).standard_normal((3, 3))}, {},
    ),
    "pseudo-inverse": (
        pseudo_inverse, pseudo_inverse_back, torch.linalg.pinv, lambda c: {"A": matrix(3, min(c, 1e4), 5)}, {},
    ),
    "matrix root": (root, root_back, torch_root, lambda c: {"A": spd(4, c)}, {}),
    "density": (
        density, density_back, torch_density, lambda c: {"S": spd(4, c), "x": vector(4)}, {"symmetric": "S"},
    ),
    "log1p": (lambda x: (np.log1p(x * x), x), lambda x, d: {"x": 2 * d * x / (1 + x * x)},
              lambda x: torch.log1p(x * x), lambda c: {"x": vector(5, c)}, {}),
    "expm1": (lambda x: (np.expm1(x), x), lambda x, d: {"x": d * np.exp(x)}, torch.expm1,
              lambda c: {"x": vector(5, c)}, {}),
    "logsumexp": (log_sum_exp, lambda p, d: {"x": d * p}, lambda x: torch.logsumexp(x, 0),
                  lambda c: {"x": vector(5, c)}, {}),
}  # fmt: skip


def scaled(backward):
    return lambda c, d: {n: 1.01 * g for n, g in backward(c, d).items()}


WRONG = {
    **{f"{name} times 1.01": (name, scaled(RIGHT[name][1])) for name in RIGHT},
    "inverse without transposes": ("inverse", lambda X, d: {"A": -X @ d @ X}),
    "solve without a transpose": ("solve", solve_untransposed),
    "the outer product turned": ("solve", lambda c, d: solve_back(c, d) | {"A": solve_back(c, d)["A"].T}),
    "the diagonal not halved": ("cholesky", lambda L, d: cholesky_back(L, d, 1.0)),
    "the other triangle lost": ("qr", lambda c, d: qr_back(c, d, False)),
    "F with the other sign": ("eigh", lambda c, d: eigh_back(c, d, -1.0)),
    "F not masked on the diagonal": ("eigh", eigh_unmasked),
    "half of the singular values": ("singular values", lambda c, d: {"A": 0.5 * (c[0] * d) @ c[1]}),
    "no part outside of the range": ("svd", lambda c, d: svd_back(c, d, False)),
    "the inverse not transposed": ("logdet", lambda A, d: {"A": d * np.linalg.inv(A)}),
    "as if A and dA commuted": ("exponential", lambda A, d: {"A": exponential(A.T) @ d}),
    "the square's first term alone": ("pseudo-inverse", lambda c, d: {"A": -c[1].T @ d @ c[1].T}),
    "the factor 1/2 missing": ("density", lambda c, d: density_back(c, d, 1.0)),
}


def subject_of(name, backward=None):
    forward, right, _, _, declared = RIGHT[name]
    rule = oracles.manual(forward, backward or right, name=name)
    return oracles.declared(rule, **declared) if declared else rule


def against_of(name):
    return [oracles.torch_autograd(RIGHT[name][2])]


@pytest.mark.parametrize("condition", [3.0, 1e8])
@pytest.mark.parametrize("name", RIGHT)
def test_right_rule_agrees(name, condition):
    result = oracles.check(subject_of(name), RIGHT[name][3](condition), against_of(name))
    assert result.verdict is Verdict.AGREES


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rule_is_refused(name):
    of, backward = WRONG[name]
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(subject_of(of, backward), RIGHT[of][3](3.0), against_of(of))
    assert excinfo.value.verdict is Verdict.WRONG


@pytest.mark.parametrize("name", ["inverse", "eigh", "svd", "logdet"])
def test_without_reference(name):
    assert oracles.check(subject_of(name), RIGHT[name][3](3.0)).verdict is Verdict.AGREES


@pytest.mark.filterwarnings("ignore::oracles.InconclusiveWarning")
def test_without_reference_next_to_a_pole():
    """The slopes along steps longer than the distance to a singular matrix grow as 1/h², and extrapolate to nothing.

    At 1e8 the rounding of the inverse alone moves a gradient by about a tenth of its size. Whether that is still an
    agreement depends on the processor; a refusal is wrong on any.
    """
    assert not oracles.check(subject_of("inverse"), {"A": matrix(6, 1e8)}).refuses
    assert oracles.check(subject_of("inverse"), {"A": matrix(6, 1e6)}).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(subject_of("inverse", scaled(RIGHT["inverse"][1])), {"A": matrix(6, 1e6)})
    assert excinfo.value.verdict is Verdict.WRONG


@pytest.mark.filterwarnings("ignore::oracles.InconclusiveWarning")
def test_rounding_that_leaves_the_domain_is_inconclusive():
    point = {"A": spd(8, 1e8).astype(np.float32)}
    with pytest.raises(oracles.Inconclusive):
        oracles.check(subject_of("cholesky"), point, against_of("cholesky"))


def test_repeated_eigenvalues():
    """torch has no derivative of eigenvectors there; finite differences decide on the right rule."""
    assert not oracles.check(subject_of("matrix root"), {"A": 2 * np.eye(3)}, against_of("matrix root")).refuses
    with pytest.raises(Disagreement):
        oracles.check(subject_of("matrix root", scaled(root_back)), {"A": 2 * np.eye(3)}, against_of("matrix root"))


def torch_function_of(transposed):
    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, A, b):
            x = torch.linalg.solve(A, b)
            ctx.save_for_backward(A, x)
            return x

        @staticmethod
        def backward(ctx, d):
            A, x = ctx.saved_tensors
            g = torch.linalg.solve(A.T if transposed else A, d)
            return -torch.outer(g, x), g

    return oracles.torch_function(Solve)


@pytest.mark.parametrize("condition", [3.0, 1e8])
def test_torch_function(condition):
    point, against = {"A": matrix(4, condition), "b": vector(4)}, against_of("solve")
    assert oracles.check(torch_function_of(True), point, against).verdict is Verdict.AGREES
    if condition < 10:
        with pytest.raises(Disagreement):
            oracles.check(torch_function_of(False), point, against)


def jax_function_of(factor):
    jax = pytest.importorskip("jax")
    from jax import numpy as jnp

    @jax.custom_vjp
    def log_determinant(A):
        return jnp.linalg.slogdet(A)[1]

    def backward(A, d):
        return (factor * d * jnp.linalg.inv(A).T,)

    log_determinant.defvjp(lambda A: (log_determinant(A), A), backward)
    return oracles.jax_function(log_determinant), oracles.jax_vjp(lambda A: jnp.linalg.slogdet(A)[1])


@pytest.mark.parametrize("condition", [3.0, 1e8])
def test_jax_function(condition):
    point = {"A": matrix(4, condition)}
    subject, reference = jax_function_of(1.0)
    assert oracles.check(subject, point, [reference]).verdict is Verdict.AGREES
    if condition < 10:
        with pytest.raises(Disagreement):
            oracles.check(jax_function_of(0.5)[0], point, [reference])


def test_named_tuples_and_views_are_perturbed():
    """eigh returns a named tuple, and the differences of eigenvalues are 0 on the diagonal however they are rounded."""
    jax = pytest.importorskip("jax")
    reference = oracles.jax_vjp(lambda A: tuple(jax.numpy.linalg.eigh(A)))
    assert oracles.check(subject_of("eigh"), {"A": spd(8)}, [reference]).verdict is Verdict.AGREES
