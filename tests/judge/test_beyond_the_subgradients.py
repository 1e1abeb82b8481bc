"""A tolerance that is large for another reason than rounding excuses no number beyond the subgradients."""

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict

torch = pytest.importorskip("torch")

ACCEPTED = (Verdict.AGREES, Verdict.KINK)


def verdict_of(subject, point, against, **options):
    """Return the verdict of a check, and whether it refuses."""
    try:
        result = oracles.check(subject, point, against, **options)
    except Disagreement as refusal:
        return refusal.verdict, True
    return result.verdict, False


def pinball(slope):
    """Return the loss of the quantile 0.9, with this slope where y = q."""

    def backward(c, d):
        s = np.where(c[0] > c[1], 0.9, np.where(c[0] < c[1], -0.1, slope))
        return {"y": d * s, "q": -d * s}

    return oracles.manual(lambda y, q: (np.maximum(0.9 * (y - q), -0.1 * (y - q)), (y, q)), backward)


def pinball_of_torch(y, q):
    return torch.maximum(0.9 * (y - q), -0.1 * (y - q))


PINBALL = {"y": np.array([1.0, 2.0]), "q": np.array([1.0, 2.5])}


@pytest.mark.parametrize("slope", [0.9, 0.4, 0.0, -0.1])
def test_a_slope_between_those_of_the_two_sides(slope):
    verdict, refuses = verdict_of(pinball(slope), PINBALL, [oracles.torch_autograd(pinball_of_torch)])
    assert verdict in ACCEPTED
    assert not refuses


@pytest.mark.parametrize("kinks", ["any", "declared"])
@pytest.mark.parametrize("slope", [0.95, 1.2, 1.3, -0.3])
def test_a_slope_beyond_those_of_the_two_sides(slope, kinks):
    reference = oracles.torch_autograd(pinball_of_torch)
    assert verdict_of(pinball(slope), PINBALL, [reference], kinks=kinks) == (Verdict.WRONG, True)


class Modulus(torch.autograd.Function):
    """|z| of complex numbers, with a factor of delta at 0."""

    @staticmethod
    def forward(ctx, z, factor):
        ctx.save_for_backward(z)
        ctx.factor = factor
        return z.abs()

    @staticmethod
    def backward(ctx, d):
        (z,) = ctx.saved_tensors
        return torch.where(z == 0, ctx.factor * d + 0j, d * z.sgn()), None


def modulus(factor):
    def forward(z):
        y = torch.from_numpy(z).requires_grad_()
        return Modulus.apply(y, factor).detach().numpy(), y

    def backward(z, d):
        return {"z": torch.autograd.grad(Modulus.apply(z, factor), z, torch.from_numpy(np.asarray(d)))[0].numpy()}

    return oracles.manual(forward, backward)


POINT = {"z": np.array([1 + 2j, 0])}
ROOT = 2.0**-0.5


@pytest.mark.parametrize("factor", [0, 0.5, 1, -1j, 0.6 + 0.6j, ROOT * (1 - 1j)])
def test_the_modulus_at_zero_has_the_unit_disc(factor):
    verdict, refuses = verdict_of(modulus(factor), POINT, [oracles.torch_autograd(torch.abs)])
    assert verdict in ACCEPTED
    assert not refuses


@pytest.mark.parametrize("factor", [1.1, 1.5, 2j, 0.9 + 0.9j, -0.95 + 0.85j])
def test_the_modulus_at_zero_has_no_more_than_the_unit_disc(factor):
    """The real and the imaginary part are one subgradient together."""
    assert verdict_of(modulus(factor), POINT, [oracles.torch_autograd(torch.abs)]) == (Verdict.WRONG, True)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, -1.0), (0.6, 0.8), (0.3, 0.4), (0.8, 0.8), (0.9, -0.9)])
def test_the_norm_at_zero_has_the_unit_ball(weights):
    def backward(x, d):
        n = np.sqrt((x * x).sum(-1, keepdims=True))
        return {"x": d[:, None] * np.where(n == 0, weights, x / np.where(n == 0, 1.0, n))}

    subject = oracles.manual(lambda x: (np.sqrt((x * x).sum(-1)), x), backward)
    reference = oracles.torch_autograd(lambda x: torch.linalg.norm(x, dim=-1))
    verdict, refuses = verdict_of(subject, {"x": np.array([[0.0, 0.0], [1.0, 2.0]])}, [reference])
    if np.hypot(*weights) <= 1:
        assert verdict in ACCEPTED
        assert not refuses
    else:
        assert (verdict, refuses) == (Verdict.WRONG, True)


def cofactors(A):
    n = range(len(A))
    signs = [[(-1) ** (i + j) for j in n] for i in n]
    return signs * np.array([[np.linalg.det(np.delete(np.delete(A, i, 0), j, 1)) for j in n] for i in n])


@pytest.mark.parametrize("factor", [3.0, 10.0])
def test_a_factor_is_no_rounding_of_a_coarser_precision(factor):
    """The reference divides by the pivots of a singular matrix: its tolerance has the size of the entries."""
    point = {"A": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])}
    subject = oracles.manual(lambda A: (np.linalg.det(A), A), lambda A, d: {"A": factor * d * cofactors(A)})
    assert verdict_of(subject, point, [oracles.torch_autograd(torch.linalg.det)]) == (Verdict.WRONG, True)


def test_another_formula_is_no_rounding_of_a_coarser_precision():
    def digamma(x):
        x = torch.from_numpy(np.asarray(x))
        return torch.digamma(x).numpy(), x.numpy()

    point, reference = {"x": np.array([0.5, 2.0, 10.0])}, oracles.torch_autograd(torch.digamma)
    subject = oracles.manual(digamma, lambda x, d: {"x": d / x})  # 2.0 at 0.5, where it is 4.93
    assert verdict_of(subject, point, [reference]) == (Verdict.WRONG, True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_computed_in_a_coarser_precision_is_said_to_be(dtype):
    def backward(c, d):
        z, W, d = (a.astype(dtype) for a in (*c, d))
        return {"z": (d @ W.T).astype(np.float64), "W": (z.T @ d).astype(np.float64)}

    rng = np.random.default_rng(0)
    point = {"z": rng.standard_normal((8, 20)), "W": rng.standard_normal((20, 3))}
    subject = oracles.manual(lambda z, W: (z @ W, (z, W)), backward)
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, point, [oracles.torch_autograd(lambda z, W: z @ W)])
    assert refusal.value.verdict is Verdict.UNSTABLE
    assert f"right up to {dtype}" in refusal.value.evidence.reason


def safe(n):
    return np.where(n == 0, 1.0, n)


def norm(at_zero):
    """Return the norm of rows, with this gradient at 0, where torch's and the balls' derivatives are no numbers."""

    def backward(x, d):
        n = np.sqrt((x * x).sum(-1, keepdims=True))
        return {"x": d[:, None] * np.where(n == 0, at_zero, x / safe(n)).astype(x.dtype)}

    return oracles.manual(lambda x: (np.sqrt((x * x).sum(-1)), x), backward), {"x": np.array([[0.0, 0.0], [1.0, 2.0]])}


def hypotenuse(at_zero):
    def backward(c, d):
        n = np.hypot(*c)
        return {k: d * np.where(n == 0, at_zero, a / safe(n)).astype(a.dtype) for k, a in zip("xy", c, strict=True)}

    return oracles.manual(lambda x, y: (np.hypot(x, y), (x, y)), backward), {
        "x": np.array([0.0, 1.0]), "y": np.array([0.0, 2.0]),
    }  # fmt: skip


def root_of_square(at_zero):
    def backward(z, d):
        return {"z": d * np.where(z == 0, at_zero, np.sign(z)).astype(z.dtype)}

    return oracles.manual(lambda z: (np.sqrt(z * z), z), backward), {"z": np.array([0.0, 1.0])}


UNKNOWN = {
    "norm": (norm, []),
    "hypotenuse": (hypotenuse, [oracles.torch_autograd(torch.hypot)]),
    "root of a square": (root_of_square, []),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_where_no_oracle_knows_a_derivative_the_slopes_nearby_bound_it(name, dtype):
    make, against = UNKNOWN[name]

    def verdict(at_zero):
        subject, point = make(at_zero)
        return verdict_of(subject, {n: a.astype(dtype) for n, a in point.items()}, against)

    for right in (0.0, 0.5, -0.7):
        assert verdict(right) == (Verdict.AGREES, False)
    for wrong in (7.0, -1e6, *(() if against else (np.nan,))):
        assert verdict(wrong) == (Verdict.WRONG, True)


def test_where_the_derivative_is_infinite_nothing_bounds_it():
    def subject(at_zero):
        def backward(z, d):
            return {"z": d * np.where(z == 0, at_zero, np.sign(z) / (2 * np.sqrt(np.abs(safe(z)))))}

        return oracles.manual(lambda z: (np.sqrt(np.abs(z)), z), backward)

    for at_zero in (0.0, 7.0):
        assert verdict_of(subject(at_zero), {"z": np.array([0.0, 1.0])}, []) == (Verdict.AGREES, False)


def sinc(at_zero):
    def backward(x, d):
        s = safe(x)
        return {"x": d * np.where(x == 0, at_zero, (np.cos(np.pi * s) - np.sinc(s)) / s)}

    return oracles.manual(lambda x: (np.sinc(x), x), backward), {"x": np.array([0.0, 0.5])}


@pytest.mark.parametrize("against", [[], [oracles.torch_autograd(torch.sinc)]], ids=["alone", "torch"])
def test_the_own_primal_judges_the_entries_of_which_a_reference_knows_nothing(against):
    """torch's sinc subtracts two numbers that underflow at 0, so that its tolerance there is any size."""
    assert verdict_of(*sinc(0.0), against) == (Verdict.AGREES, False)
    for slope in (1.0, 3.0, -5.0):
        assert verdict_of(*sinc(slope), against) == (Verdict.WRONG, True)


def row_maximum(factor):
    """Return the maximum of each row, whose gradient has a factor."""

    def backward(x, d):
        g = np.zeros_like(x)
        np.put_along_axis(g, x.argmax(-1)[..., None], (d * np.asarray(factor, d.dtype))[..., None], -1)
        return {"x": g}

    return oracles.manual(lambda x: (x.max(-1), x), backward)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_rounding_across_ties_is_no_excuse_for_a_factor(dtype):
    import ml_dtypes

    x = np.random.default_rng(4).integers(0, 3, (6, 4)).astype(getattr(ml_dtypes, dtype, dtype))
    reference = oracles.torch_autograd(lambda x: x.max(-1).values)
    verdict, refuses = verdict_of(row_maximum(1.0), {"x": x}, [reference])
    assert verdict in ACCEPTED
    assert not refuses
    for factor in (0.5, 0.0):
        assert verdict_of(row_maximum(factor), {"x": x}, [reference]) == (Verdict.WRONG, True)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_choice_of_the_reference_at_a_kink_loses_no_digits(dtype):
    """Ball arithmetic follows another branch of max(z, 0) at 0 than torch and the subject."""
    subject = oracles.manual(lambda z: (np.maximum(z, 0), z), lambda z, d: {"z": d * (z > 0)})
    point = {"z": np.array([0.0, 1.0, -2.0, 0.0], dtype)}
    assert verdict_of(subject, point, [oracles.torch_autograd(torch.relu)]) == (Verdict.AGREES, False)
