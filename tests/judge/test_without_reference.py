"""Nothing but the subject's own forward: right formulas pass, those that lose digits and guard their domain too."""

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict
from oracles.finite_differences import directional_derivative
from oracles.perturbation.numpy_arrays import perturbed_array
from oracles.rule import Perturbation
from oracles.tolerance import tolerance_at


def tanh_steps(x, U):
    y = np.tanh(x @ U)
    return y, (x, y, U)


def tanh_steps_back(cache, delta):
    x, y, U = cache
    e = delta * (1 - y * y)  # the usual formula, which loses what sech² would keep
    return {"x": e @ U.T, "U": x.T @ e}


def entropy(p):
    if np.abs(p.sum(axis=1) - 1).max() > 1e-6:
        raise ValueError("not on the simplex")
    return (p * np.log(p)).sum(axis=1), p


def likelihood(p, t):
    assert ((p > 0) & (p < 1)).all()
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(), (p, t)


def correlate(x, W):
    y = np.zeros((len(x), x.shape[1] - len(W) + 1), x.dtype)
    for i in range(y.shape[1]):
        y[:, i] = np.tensordot(x[:, i : i + len(W)], W, ([1], [0]))
    return y, (x, W)


def correlate_back(cache, delta):
    x, W = cache
    dx, dW = np.zeros_like(x), np.zeros_like(W)
    for i in range(delta.shape[1]):
        dx[:, i : i + len(W)] += np.multiply.outer(delta[:, i], W)
        dW += np.einsum("n,nk->k", delta[:, i], x[:, i : i + len(W)])
    return {"x": dx, "W": dW}


PAIRS = {
    "tanh": (tanh_steps, tanh_steps_back),
    "entropy": (entropy, lambda p, d: {"p": d[:, None] * (np.log(p) + 1)}),
    "likelihood": (likelihood, lambda c, d: {"p": d * (c[0] - c[1]) / (c[0] * (1 - c[0])), "t": None}),
    "correlate": (correlate, correlate_back),
}


def point(name, seed, dtype):
    rng = np.random.default_rng(seed)
    primals = {
        "tanh": lambda: {"x": 3 * rng.standard_normal((4, 3)), "U": 2 * rng.standard_normal((3, 3))},
        "entropy": lambda: {"p": rng.dirichlet(np.ones(4), 3)},
        "likelihood": lambda: {"p": rng.uniform(0.02, 0.98, (4, 3)), "t": rng.integers(0, 2, (4, 3)) * 1.0},
        "correlate": lambda: {"x": rng.standard_normal((3, 6)), "W": rng.standard_normal(3)},
    }[name]()
    return {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in primals.items()}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", PAIRS)
def test_correct_formulas_pass_without_a_reference(name, dtype):
    for seed in range(4):
        result = oracles.check(oracles.manual(*PAIRS[name]), point(name, seed, dtype))
        assert result.verdict in (Verdict.AGREES, Verdict.UNSTABLE)
        assert any(f.quantity != "output" and f.detects_above for f in result.findings)


@pytest.mark.parametrize("name", PAIRS)
def test_wrong_formulas_are_refused_without_a_reference(name):
    forward, backward = PAIRS[name]

    def wrong(cache, delta):
        cotangents = {n: g for n, g in backward(cache, delta).items() if g is not None}
        n = next(iter(cotangents))
        return cotangents | {n: cotangents[n] * (1 + 1e-6)}

    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.manual(forward, wrong), point(name, 0, "float64"))
    assert excinfo.value.verdict is Verdict.WRONG


def test_tolerance_comes_from_the_subjects_own_operations():
    """Where 1 − y² cancels, its rounding is far larger than what moving the inputs shows."""
    x = {"z": np.array([15.0])}
    subject = oracles.manual(lambda z: (np.tanh(z), np.tanh(z)), lambda y, d: {"z": d * (1 - y * y)})
    tolerance = tolerance_at([], x, np.ones(1), "float64", fallback=subject).estimate(16)["z"]
    assert tolerance > 2.0**-54


def test_numpy_functions_other_than_ufuncs_are_perturbed():
    a = perturbed_array(np.ones((3, 3)), Perturbation(np.random.default_rng(0), 1e-3))
    computed = (np.tensordot(a, a, 1), np.einsum("ij,jk", a, a), a.dot(a), np.kron(a, a), a @ a, a.sum(0), np.cumsum(a))
    exact = np.ones((3, 3))
    plain = (exact @ exact, exact @ exact, exact @ exact, np.kron(exact, exact), exact @ exact, exact.sum(0))
    for value, plain_value in zip(computed, (*plain, np.cumsum(exact)), strict=True):
        assert np.any(np.asarray(value) != plain_value)
    for moved in (np.concatenate([a, a]), np.where(a > 0, a, 0.0), a.T, -a, np.maximum(a, 0.0)):
        assert np.all(np.abs(np.asarray(moved)) == 1.0)


def test_finite_differences_stay_inside_the_domain():
    subject = oracles.manual(*PAIRS["likelihood"])
    at = {"p": np.array([[0.999]]), "t": np.array([[1.0]])}
    slope, radius = directional_derivative(subject, at, np.float64(1.0), {"p": np.ones((1, 1))})
    assert abs(slope + 1 / 0.999) <= radius < 1e-3

    def nowhere_else(p):
        if np.any(p != 0.5):
            raise ValueError("outside")
        return p.copy(), None

    nowhere = directional_derivative(
        oracles.manual(nowhere_else, lambda c, d: {"p": d}), {"p": np.array([0.5])}, np.ones(1), {"p": np.ones(1)}
    )
    assert nowhere[1] == np.inf
