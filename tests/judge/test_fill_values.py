"""Constants that stand for −∞ (−1e30, −1e9, finfo.min) are exact: no rounding moves them from one another."""

import warnings

import numpy as np
import pytest

from oracles import Disagreement, InconclusiveWarning, Verdict, check, manual
from oracles.constants import MORE_SAMPLES
from oracles.perturbation.fill_values import FillValues
from oracles.tolerance import tolerance_at

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from oracles import jax_vjp, torch_autograd  # noqa: E402

NEG = -1e30
MASK = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
P = {"lp": np.random.default_rng(0).standard_normal((4, 5))}


def lse(*x):
    m = np.maximum.reduce(x)
    return m + np.log(sum(np.exp(v - m) for v in x))


def chain(factor):
    """Sum over all paths that start in state 0 and stay or advance; the gradient of the last frame times a factor."""

    def forward(lp):
        a = np.full(lp.shape, NEG, lp.dtype)
        a[0, 0] = lp[0, 0]
        for t in range(1, len(lp)):
            a[t] = lse(a[t - 1], np.concatenate([[NEG], a[t - 1, :-1]]).astype(lp.dtype)) + lp[t]
        m = a[-1].max()
        z = m + np.log(np.exp(a[-1] - m).sum())
        return z, (lp, a, z)

    def backward(cache, delta):
        lp, a, z = cache
        b, g = np.zeros(lp.shape[1], lp.dtype), np.zeros_like(lp)
        for t in range(len(lp) - 1, -1, -1):
            g[t] = np.exp(a[t] + b - z)
            n = b + lp[t]
            b = lse(n, np.concatenate([n[1:], [NEG]]).astype(lp.dtype))
        g[-1] *= factor
        return {"lp": g * delta}

    return manual(forward, backward)


def chain_in_torch(lp):
    none = torch.full((1,), NEG, dtype=lp.dtype)
    a = torch.cat([lp[0, :1], none.expand(lp.shape[1] - 1)])
    for t in range(1, len(lp)):
        a = torch.stack([a, torch.cat([none, a[:-1]])]).logsumexp(0) + lp[t]
    return a.logsumexp(0)


def chain_in_jax(lp):
    a = jax.numpy.where(np.arange(lp.shape[1]) == 0, lp[0], NEG)
    for t in range(1, len(lp)):
        before = jax.numpy.concatenate([jax.numpy.full(1, NEG), a[:-1]])
        a = jax.scipy.special.logsumexp(jax.numpy.stack([a, before]), 0) + lp[t]
    return jax.scipy.special.logsumexp(a)


REFERENCES = {"torch": [torch_autograd(chain_in_torch)], "jax": [jax_vjp(chain_in_jax)], "none": []}


@pytest.mark.parametrize("name", REFERENCES)
def test_paths_from_a_finite_minus_infinity_are_judged(name):
    result = check(chain(1.0), P, REFERENCES[name])
    assert result.verdict is Verdict.AGREES
    assert result.judged == {"output": (1, 1), "lp": (20, 20)}
    with pytest.raises(Disagreement) as error:
        check(chain(0.5), P, REFERENCES[name])
    assert error.value.verdict is Verdict.WRONG


@pytest.mark.parametrize("name", REFERENCES)
def test_every_sample_leaves_a_finite_minus_infinity(name):
    estimator = tolerance_at(REFERENCES[name], P, np.float64(1.0), "float64", fallback=chain(1.0))
    assert np.max(estimator.estimate(MORE_SAMPLES)["lp"]) < 1e-12
    assert np.max(estimator.backward_tolerance("lp")) < 1e-12


def masked_softmax(fill, is_right, scale=1.0):
    def forward(z):
        s = np.where(MASK, z, np.array(fill, z.dtype)) * np.array(scale, z.dtype)
        e = np.exp(s - s.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        return p, p

    def backward(p, delta):
        g = scale * p * (delta - (p * delta).sum(1, keepdims=True))
        return {"z": (np.where(MASK, g, 0) if is_right else g).astype(p.dtype)}

    return manual(forward, backward)


FILLS = [
    ("float64", NEG),
    ("float64", np.finfo(np.float64).min),
    ("float32", -1e9),
    ("float32", NEG),
    ("float16", -1e4),
]


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize(("dtype", "fill"), FILLS)
@pytest.mark.parametrize("name", ["torch", "jax", "none"])
def test_gradient_that_leaks_from_a_row_without_entries_is_wrong(name, dtype, fill, scale):
    fill = float(fill)
    mask = torch.from_numpy(MASK)
    references = {
        "torch": [torch_autograd(lambda z: (z.masked_fill(~mask, fill) * scale).softmax(1))],
        "jax": [jax_vjp(lambda z: jax.nn.softmax(jax.numpy.where(MASK, z, fill) * scale, 1))],
        "none": [],
    }[name]
    z = np.random.default_rng(9).standard_normal((3, 4)).astype(dtype)
    result = check(masked_softmax(fill, True, scale), {"z": z}, references)
    assert result.judged["z"] == (12, 12)
    with pytest.raises(Disagreement) as error:
        check(masked_softmax(fill, False, scale), {"z": z}, references)
    assert error.value.verdict is Verdict.WRONG


def test_infinite_tolerance_shows_no_right_formula(monkeypatch):
    # As if no constant were exact, so that rounding may move −1e9 by more than exp allows.
    monkeypatch.setattr("oracles.perturbation.fill_values.LARGE_CONSTANT", np.inf)
    z = np.random.default_rng(9).standard_normal((3, 4)).astype(np.float32)
    assert check(masked_softmax(-1e9, True), {"z": z}).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as error:
        check(masked_softmax(-1e9, False), {"z": z})
    assert error.value.verdict is Verdict.WRONG


def test_array_of_which_most_entries_are_open_is_reported():
    reference = torch_autograd(lambda z, b: (z - b) + b + z)

    def at(b):
        subject = manual(lambda z, b: ((z - b) + b + z, None), lambda _, delta: {"z": 2 * delta, "b": 0 * delta})
        return check(subject, {"z": np.array([1.0, 2.0, 3.0, 4.0]), "b": np.array(b)}, [reference])

    with pytest.warns(InconclusiveWarning, match="3 of 4 entries of output were not judged"):
        result = at([0.0, 1e20, 1e20, 1e20])
    assert "3 of 4 entries of output were not judged" in str(result)
    assert not at([0.0, 0.0, 0.0, 1e20]).mostly_open


def test_zeros_and_what_underflows_are_not_open():
    def forward(z):
        p = np.exp(z - z.max())
        return p / p.sum(), p / p.sum()

    softmax = manual(forward, lambda p, delta: {"z": p * (delta - (p * delta).sum())})
    padded = manual(lambda z: (z[:1] * 2, z), lambda z, delta: {"z": np.pad(2 * delta, (0, len(z) - 1))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(softmax, {"z": np.array([0.0, -1.0, -740.0, -741.0, -742.0])}, [torch_autograd(lambda z: z.softmax(0))])
        check(padded, {"z": np.arange(1.0, 9.0)}, [torch_autograd(lambda z: z[:1] * 2)])


def test_fill_values_are_large_integers_of_few_kinds():
    fills = FillValues()
    fills.add(0.5)
    fills.add(1.0)
    fills.add(1234.5)
    fills.add(np.arange(1000.0, 2000.0))
    assert not fills
    fills.add(np.array([0.0, NEG]))
    assert fills.among(np.array([-1e30, 1e30, NEG + NEG, 1.0, 7e29])).tolist() == [True, True, True, False, False]
    moved = fills.restored(np.array([NEG, 2.0]), np.array([0.0, 0.0]))
    assert moved.tolist() == [NEG, 0.0]
    fills.scale(0.125)
    assert fills.among(np.array([NEG * 0.125])).all()
