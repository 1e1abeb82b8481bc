"""Every verdict, with its evidence."""

import numpy as np
import pytest
import torch

import oracles
from oracles import Disagreement, Verdict
from oracles.constants import LAST_SAMPLES
from oracles.decision import decisions
from oracles.decision.judge import judge
from oracles.rule import Rule, Runtime
from oracles.tolerance import tolerance_at

RNG = np.random.default_rng(4)


def verdict_of(subject, primals, against, **options):
    """Return the verdict, whether `check` returns or raises it."""
    excinfo = None
    try:
        return oracles.check(subject, primals, against=against, **options).verdict
    except Disagreement as error:
        excinfo = error
    assert len(str(excinfo).splitlines()) <= 25
    return excinfo.verdict


def relu(z):
    return torch.relu(z)


def maximum(z):
    return z.max(-1).values


def at_zero(slope):
    return oracles.manual(
        lambda z: (np.maximum(z, 0), z), lambda z, d: {"z": d * np.where(z == 0, slope, z > 0)}, name=f"relu' {slope}"
    )


KINKED = {"z": np.array([[0.0, 1.0, -2.0, 0.0]])}


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_any_subgradient_of_relu_is_accepted(slope):
    result = oracles.check(at_zero(slope), KINKED, against=[oracles.torch_autograd(relu)])
    assert result.verdict is (Verdict.AGREES if slope == 0 else Verdict.KINK)
    assert not result.refuses


@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_against_a_declared_convention_a_subgradient_is_refused_as_a_kink(slope):
    against = [oracles.torch_autograd(relu), oracles.jax_vjp(lambda z: __import__("jax").nn.relu(z))]
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(at_zero(slope), KINKED, against=against, kinks="declared")
    assert excinfo.value.verdict is Verdict.KINK
    assert excinfo.value.evidence.index in ((0, 0), (0, 3))


@pytest.mark.parametrize("slope", [-0.25, 1.5, 2.0])
def test_slope_outside_the_subdifferential_is_wrong(slope):
    assert verdict_of(at_zero(slope), KINKED, [oracles.torch_autograd(relu)]) is Verdict.WRONG


def tied(weights):
    def backward(z, d):
        g = np.zeros_like(z)
        for row in range(len(z)):
            ties = np.flatnonzero(z[row] == z[row].max())
            g[row, ties] = d[row] * np.asarray(weights(len(ties)))
        return {"z": g}

    return oracles.manual(lambda z: (z.max(-1), z), backward, name="max")


TIED = {"z": np.array([[2.0, 2.0, 1.0, 2.0], [0.0, 5.0, 5.0, 1.0]])}


@pytest.mark.parametrize(
    ("weights", "verdict"),
    [
        (lambda n: np.full(n, 1 / n), Verdict.KINK),
        (lambda n: np.eye(n)[-1], Verdict.KINK),
        (lambda n: np.ones(n), Verdict.WRONG),
        (lambda n: np.zeros(n), Verdict.WRONG),
    ],
    ids=["shared", "last", "every tie whole", "no tie"],
)
def test_a_tied_maximum(weights, verdict):
    assert verdict_of(tied(weights), TIED, [oracles.torch_autograd(maximum)]) is verdict


def dense(dtype=None, factor=1.0):
    """A matrix product whose gradient is computed in ``dtype`` and scaled."""

    def backward(cache, d):
        z, W = (a if dtype is None else a.astype(dtype) for a in cache)
        d_ = d if dtype is None else d.astype(dtype)
        return {"z": (d_ @ W.T * factor).astype(d.dtype), "W": (z.T @ d_ * factor).astype(d.dtype)}

    return oracles.manual(lambda z, W: (z @ W, (z, W)), backward, name=f"dense in {dtype}")


POINT = {"z": RNG.standard_normal((5, 6)), "W": RNG.standard_normal((6, 4))}
DENSE = oracles.torch_autograd(lambda z, W: z @ W)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_undeclared_precision_is_unstable_and_declared_it_agrees(dtype):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(dense(dtype), POINT, against=[DENSE])
    assert excinfo.value.verdict is Verdict.UNSTABLE
    assert f"right up to {dtype}" in str(excinfo.value)
    assert verdict_of(dense(dtype), POINT, [DENSE], precision=dtype) is Verdict.AGREES


def test_gradient_returned_in_a_coarser_dtype_is_unstable():
    subject = oracles.manual(
        lambda z, W: (z @ W, (z, W)), lambda c, d: {"z": (d @ c[1].T).astype(np.float32), "W": c[0].T @ d}
    )
    assert verdict_of(subject, POINT, [DENSE]) is Verdict.UNSTABLE
    small = {"z": np.ones((2, 2)), "W": np.ones((2, 2))}  # every value is exact in float32, and it is still refused
    assert verdict_of(subject, small, [DENSE], delta=np.ones((2, 2))) is Verdict.UNSTABLE


@pytest.mark.parametrize("factor", [2.0, -1.0, 1 + 1e-6, 1 + 1e-9, 1 + 1e-12])
def test_a_factor_is_wrong_however_small(factor):
    assert verdict_of(dense(factor=factor), POINT, [DENSE]) is Verdict.WRONG
    assert verdict_of(dense(factor=factor), POINT, [DENSE, oracles.jax_vjp(lambda z, W: z @ W)]) is Verdict.WRONG


def test_a_formula_that_loses_digits_is_unstable():
    """Variance as E[x²] − E[x]²: right, and useless far from zero."""

    def naive(x):
        mean, square = x.mean(), (x * x).mean()
        return np.sqrt(square - mean * mean), (x, mean, np.sqrt(square - mean * mean))

    def backward(cache, d):
        x, mean, deviation = cache
        return {"x": d * (x - mean) / (len(x) * deviation)}

    subject = oracles.manual(naive, backward, name="standard deviation")
    reference = oracles.torch_autograd(lambda x: (x - x.mean()).square().mean().sqrt())
    point = {"x": 1e6 + np.random.default_rng(4).standard_normal(6)}
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(subject, point, against=[reference])
    assert excinfo.value.verdict is Verdict.UNSTABLE
    assert any("torch's own backward does not" in f.evidence.reason for f in excinfo.value.result.findings)


@pytest.mark.parametrize(("tolerances", "verdict"), [(0.9, "agrees"), (1.5, "agrees"), (3.0, "unstable")])
def test_a_right_formula_loses_digits_from_one_binary_digit_on(tolerances, verdict):
    """The error shrinks with the precision in which the subject computes."""
    reference, primals, delta = (
        oracles.torch_autograd(lambda z, g: z * g),
        {"z": np.ones(3), "g": np.ones(3)},
        np.ones(3),
    )
    identity = oracles.manual(lambda z, g: (z * g, (z, g)), lambda c, d: {"z": d * c[1], "g": d * c[0]})
    estimator = tolerance_at([reference], primals, delta, "float64", fallback=identity)
    roundings = tolerances * estimator.estimate(LAST_SAMPLES)["z"].min() / np.finfo(np.float64).eps

    def backward(cache, d):
        z, g = cache
        return {"z": d * g * (1 + d.dtype.type(roundings) * np.finfo(d.dtype).eps), "g": d * z}

    subject = oracles.manual(lambda z, g: (z * g, (z, g)), backward, name="product")
    assert verdict_of(subject, primals, [reference], delta=delta) == verdict


def test_where_rounding_is_as_large_as_the_gradient_the_verdict_is_vacuous():
    """The gradient of 1e17·z − (1e17 − 16)·z is 16, and rounding alone may move it by more."""
    subject = oracles.manual(lambda z: (16 * z, z), lambda z, d: {"z": 16 * d}, name="sixteen")
    reference = oracles.torch_autograd(lambda z: 1e17 * z - (1e17 - 16) * z)
    result = judge(subject, {"z": np.array([1.0])}, np.array([2.0]), [reference], only=["z"])
    (by_torch,) = [f for f in result.findings if f.oracle == "torch"]
    assert by_torch.verdict is Verdict.VACUOUS
    assert by_torch.detects_above == 0


def test_ball_arithmetic_proves_what_torch_and_jax_miss():
    """The derivative of expm1 at −40 is 4.2e-18; both frameworks compute expm1(z) + 1 = 0."""
    import jax.numpy as jnp

    subject = oracles.manual(lambda z: (np.expm1(z), z), lambda z, d: {"z": d * np.exp(z)}, name="expm1")
    against = [oracles.torch_autograd(torch.expm1), oracles.jax_vjp(jnp.expm1)]
    result = oracles.check(subject, {"z": np.array([-40.0])}, against=against)
    exact = [f for f in result.findings if f.oracle == "exact" and f.quantity == "z"]
    assert exact
    assert all(f.verdict is Verdict.AGREES for f in exact)

    missing = oracles.manual(lambda z: (np.expm1(z), z), lambda z, d: {"z": d * (np.expm1(z) + 1)}, name="expm1")
    result = oracles.check(missing, {"z": np.array([-40.0])}, against=against)
    assert result.verdict is Verdict.UNSTABLE
    assert not result.refuses  # torch and JAX lose as much
    assert any("loses as much" in f.evidence.reason for f in result.findings)


def test_the_exact_value_settles_a_conflict_between_oracles():
    shifted = oracles.torch_autograd(lambda z, W: z @ W + 1e-6 * (z.sum() - z.detach().sum()), name="another torch")
    accepted = oracles.check(dense(), POINT, against=[DENSE, shifted])
    assert accepted.verdict is Verdict.AGREES
    assert any("proves the subject right" in f.evidence.reason for f in accepted.findings)
    assert accepted.ratio <= 1  # the subject's error, not the other's
    assert verdict_of(dense(factor=1.001), POINT, [DENSE, shifted]) is Verdict.WRONG


def test_without_an_arbiter_contradicting_oracles_are_a_conflict():
    class NotPerturbable:
        """Hides the primal from ball arithmetic."""

        def __call__(self, **primals):
            for a in primals.values():
                a.view(np.uint8)
            return dense()(**primals)

    shifted = oracles.torch_autograd(lambda z, W: z @ W + 1e-6 * (z.sum() - z.detach().sum()), name="another torch")
    subject = oracles.Rule(NotPerturbable(), "opaque")
    assert verdict_of(subject, POINT, [DENSE, shifted]) is Verdict.ORACLES_CONFLICT


def normalized(z):
    """Two passes: mean, then variance."""
    return (z - z.mean()) / (((z - z.mean()) ** 2).mean() + 1e-5).sqrt()


def normalized_in_one_pass(z, factor=1.0):
    """The variance is a difference of two large numbers, which loses digits."""
    return factor * (z - z.mean()) / ((z**2).mean() - z.mean() ** 2 + 1e-5).sqrt()


def normalize(z, delta):
    deviation = z - z.mean()
    scale = 1 / np.sqrt(np.mean(deviation**2) + 1e-5)
    return scale * (delta - delta.mean() - scale**2 * deviation * np.mean(deviation * delta))


NARROW = {"z": 3 + 1e-3 * np.random.default_rng(8).standard_normal(1025)}
NORMALIZE = oracles.manual(
    lambda z: ((z - z.mean()) / np.sqrt(np.mean((z - z.mean()) ** 2) + 1e-5), z), lambda z, d: {"z": normalize(z, d)}
)


def test_reference_that_loses_digits_refuses_nothing_that_another_accepts():
    against = [oracles.torch_autograd(normalized), oracles.torch_autograd(normalized_in_one_pass, name="one pass")]
    result = oracles.check(NORMALIZE, NARROW, against=against)
    assert result.verdict is Verdict.AGREES
    assert result.ratio <= 1


def test_reference_that_is_off_by_more_than_it_loses_is_a_conflict():
    off = oracles.torch_autograd(lambda z: normalized_in_one_pass(z, 1.00001), name="one pass")
    assert verdict_of(NORMALIZE, NARROW, [oracles.torch_autograd(normalized), off]) is Verdict.ORACLES_CONFLICT


def test_exact_derivative_of_a_wrong_forward_is_wrong():
    doubled = oracles.manual(lambda z: (2 * np.sin(z), z), lambda z, d: {"z": 2 * np.cos(z) * d})
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(doubled, {"z": np.array([0.3, 1.0])}, against=[oracles.torch_autograd(torch.sin)])
    assert excinfo.value.verdict is Verdict.WRONG


def test_approximating_reference_is_a_conflict():
    """torch's softplus is the identity from 20 on; log1p(e^−|z|) + max(z, 0) is not."""
    subject = oracles.manual(
        lambda z: (np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0), z), lambda z, d: {"z": d / (1 + np.exp(-z))}
    )
    point = {"z": np.array([-3.0, 0.5, 25.0])}
    assert (
        verdict_of(subject, point, [oracles.torch_autograd(torch.nn.functional.softplus)]) is Verdict.ORACLES_CONFLICT
    )
    assert verdict_of(subject, point, []) is Verdict.AGREES
    slightly_off = oracles.manual(
        lambda z: (np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0), z),
        lambda z, d: {"z": (1 + 1e-12) * d / (1 + np.exp(-z))},
    )
    assert verdict_of(slightly_off, point, [oracles.torch_autograd(torch.nn.functional.softplus)]) is Verdict.WRONG


def coarser(cache, d):
    return {"z": (d @ cache[1].T).astype(np.float32), "W": cache[0].T @ d}


def softplus(z):
    return np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0), z


def deviation(x):
    mean, square = x.mean(), (x * x).mean()
    return np.sqrt(square - mean * mean), (x, mean, np.sqrt(square - mean * mean))


SHIFTED = oracles.torch_autograd(lambda z, W: z @ W + 1e-6 * (z.sum() - z.detach().sum()), name="another torch")
DECIDED = {
    "coarser_dtype": (oracles.manual(lambda z, W: (z @ W, (z, W)), coarser), POINT, [DENSE]),
    "kink": (at_zero(0.5), KINKED, [oracles.torch_autograd(relu)]),
    "certified_by_ball_arithmetic": (dense(), POINT, [DENSE, SHIFTED]),
    "primals_differ_slightly": (
        oracles.manual(softplus, lambda z, d: {"z": d / (1 + np.exp(-z))}),
        {"z": np.array([-3.0, 0.5, 25.0])},
        [oracles.torch_autograd(torch.nn.functional.softplus)],
    ),
    "wrong_formula": (dense(factor=2.0), POINT, [DENSE]),
    "right_in_coarser_precision": (dense("float32"), POINT, [DENSE]),
    "loses_digits": (
        oracles.manual(deviation, lambda c, d: {"x": d * (c[0] - c[1]) / (len(c[0]) * c[2])}),
        {"x": 1e6 + np.random.default_rng(4).standard_normal(6)},
        [oracles.torch_autograd(lambda x: (x - x.mean()).square().mean().sqrt())],
    ),
}


@pytest.mark.parametrize("name", DECIDED)
def test_each_decision_ends_a_judgement(name, monkeypatch):
    endings = set()

    def recorded(decision):
        def decide(comparison):
            outcome = decision(comparison)
            if isinstance(outcome, list) and comparison.refusing:
                endings.add(decision.__name__)
            return outcome

        return decide

    monkeypatch.setattr(decisions, "DECISIONS", tuple(map(recorded, decisions.DECISIONS)))
    subject, primals, against = DECIDED[name]
    y, _ = subject(**primals)
    judge(subject, primals, np.ones(np.shape(y)) * 1.25, against)
    assert name in endings


def test_digits_that_cancel_are_told_from_a_formula_by_how_the_error_shrinks():
    """exp(x) − 1 at 1e-9: long double brings 11 bits back, which are not all that cancel."""

    def only_floats(f):
        def call(x, *rest):
            if x.dtype == object:
                raise TypeError("floats alone")
            return f(x, *rest)

        return call

    def subject(factor):
        return oracles.manual(
            only_floats(lambda x: (np.exp(x) - 1, x)), only_floats(lambda x, d: {"x": d * factor * (np.exp(x) - 1 + 1)})
        )

    point = {"x": np.array([1e-9, -3e-10, -60.0, 0.5])}
    assert verdict_of(subject(1.0), point, [oracles.torch_autograd(torch.expm1)]) is Verdict.UNSTABLE
    assert verdict_of(subject(1 + 1e-7), point, [oracles.torch_autograd(torch.expm1)]) is Verdict.WRONG


def test_up_to_two_tolerances_nobody_knows_where_code_runs_in_no_finer_precision():
    """Other steps that are as good round up to about so much more than the reference's, as XLA's tanh does."""
    rng = np.random.default_rng(3)
    primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 2))}
    delta, reference = rng.standard_normal((4, 2)), oracles.torch_autograd(lambda z, W: (z @ W).tanh())
    right = reference(**primals)[1](delta)

    def off_by(error):
        cotangents = {"z": right["z"], "W": right["W"] + error}
        subject = Rule(lambda **_: (reference(**primals)[0], lambda _: cotangents), "s", runtime=Runtime.OPAQUE)
        return judge(subject, primals, delta, [reference])

    tolerance = off_by(1.0).worst.evidence.tolerance
    error = np.zeros((3, 2))
    error[off_by(1.0).worst.evidence.index] = tolerance
    assert [off_by(k * error).refuses for k in (1.5, 3.0)] == [False, True]
    assert off_by(3.0 * error).verdict is Verdict.WRONG
