"""Entries that are not judged are counted and named; what is judged by no oracle is no agreement."""

import numpy as np
import pytest
import torch

import oracles
from oracles import Disagreement, Inconclusive, InconclusiveWarning, Verdict, check, manual, torch_autograd
from oracles.decision.judge import judge

POINTS = np.append(np.linspace(-0.9, 0.9, 9), 1 - 2.0**-53)


def arcsine(factor):
    """Return arcsin, whose last cotangent is multiplied by a factor."""

    def backward(z, delta):
        dz = delta / np.sqrt((1 - z) * (1 + z))
        dz[-1] *= factor
        return {"z": dz}

    return manual(lambda z: (np.arcsin(z), z), backward)


def square(factor=1.0):
    return manual(lambda z: (z * z, z), lambda z, delta: {"z": factor * 2 * z * delta})


SQUARE = torch_autograd(torch.square)


def test_result_counts_the_judged_entries():
    result = check(square(), {"z": np.linspace(1, 2, 5)}, [SQUARE])
    assert result.judged == {"output": (5, 5), "z": (5, 5)}
    assert result.unknown == []
    assert "entries judged: 10 of 10" in str(result)


def test_entry_that_rounding_can_move_by_its_size_is_named():
    z = np.array([1.0, 2.0, 3.0])
    shifted = manual(lambda z: ((z - 1e20) + 1e20 + z, z), lambda z, delta: {"z": 2 * delta})
    reference = torch_autograd(lambda z: (z - 1e20) + 1e20 + z)
    with pytest.warns(InconclusiveWarning, match="3 of 3 entries of output were not judged"):
        result = check(shifted, {"z": z}, [reference])
    assert result.judged["output"] == (0, 3)
    assert result.judged["z"] == (3, 3)
    assert result.unknown == ["output[0], output[1], output[2]"]


def test_entry_without_a_finite_oracle_is_named():
    def norm(z):
        y = np.sqrt((z * z).sum(-1))
        return y, (z, y)

    def backward(cache, delta):
        z, y = cache
        return {"z": delta[:, None] * z / np.where(y > 0, y, 1.0)[:, None]}

    z = np.array([[3.0, 4.0], [0.0, 0.0]])
    result = check(manual(norm, backward), {"z": z}, [torch_autograd(lambda z: z.square().sum(-1).sqrt())])
    assert result.verdict is Verdict.AGREES
    assert result.judged["z"] == (2, 4)
    assert result.unknown == ["z[1, 0], z[1, 1]"]


def test_delta_of_zeros_judges_nothing():
    with pytest.warns(InconclusiveWarning):
        result = check(square(), {"z": np.ones(3)}, [SQUARE], delta=np.zeros(3))
    assert result.verdict is Verdict.VACUOUS
    assert result.inconclusive == ("z",)
    assert result.judged["z"] == (0, 3)


def test_nonzero_cotangent_of_a_delta_of_zeros_is_wrong():
    ignores_delta = manual(lambda z: (z * z, z), lambda z, delta: {"z": 2 * z})
    with pytest.raises(Disagreement) as excinfo:
        check(ignores_delta, {"z": np.ones(3)}, [SQUARE], delta=np.zeros(3))
    assert excinfo.value.verdict == "wrong"


@pytest.mark.parametrize("factor", [1.0, -1e6])
def test_cotangent_without_any_bound_is_inconclusive(factor):
    """A script must not pass where any number would."""
    subject = manual(lambda z: (z * np.nan, z), lambda z, delta: {"z": factor * delta})
    with pytest.raises(Inconclusive) as excinfo:
        check(subject, {"z": np.ones(3)}, [torch_autograd(lambda z: z * torch.nan)])
    assert excinfo.value.verdict is Verdict.VACUOUS
    assert excinfo.value.result.inconclusive == ("z",)


def root(factor):
    """Return the square root of a symmetric matrix, whose cotangent is multiplied by a factor."""

    def forward(A):
        values, vectors = np.linalg.eigh((A + A.T) / 2)
        return (vectors * np.sqrt(values)) @ vectors.T, (vectors, np.sqrt(values))

    def backward(cache, delta):
        vectors, roots = cache
        inner = vectors.T @ ((delta + delta.T) / 2) @ vectors
        return {"A": factor * vectors @ (inner / (roots[:, None] + roots)) @ vectors.T}

    return manual(forward, backward)


def root_of_torch(A):
    values, vectors = torch.linalg.eigh((A + A.T) / 2)
    return (vectors * values.sqrt()) @ vectors.T


def test_finite_differences_decide_where_the_reference_has_no_derivative():
    """torch's eigh has no derivative at equal eigenvalues; the matrix square root has one."""
    identity = {"A": 2 * np.eye(3)}
    assert check(root(1.0), identity, [torch_autograd(root_of_torch)]).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as excinfo:
        check(root(1.01), identity, [torch_autograd(root_of_torch)])
    assert excinfo.value.verdict == "wrong"
    assert excinfo.value.result.worst.oracle == "finite difference"


@pytest.mark.parametrize("seed", range(4))
def test_finite_differences_decide_where_rounding_hides_all_of_the_reference(seed):
    """Of eigenvalues that are equal up to rounding torch's derivative is as large as rounding makes it."""
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((5, 5)))
    point = {"A": Q @ np.diag([2.0, 2.0, 2.0, 5.0, 5.0]) @ Q.T}
    assert check(root(1.0), point, [torch_autograd(root_of_torch)]).judged["A"] == (25, 25)
    for factor in (1.01, 7.0):
        with pytest.raises(Disagreement) as excinfo:
            check(root(factor), point, [torch_autograd(root_of_torch)])
        assert excinfo.value.verdict == "wrong"


def test_the_own_primal_does_not_judge_what_a_reference_declares():
    def doubled(A):
        y = root_of_torch(A)
        return 2 * y - y.detach()

    # No eigenvalue is equal to another, so torch's derivative is finite.
    point, delta = {"A": np.diag(2 + 2.0**-51 * np.arange(4))}, np.arange(16.0).reshape(4, 4) + 1
    result = judge(root(2.0), point, delta, [torch_autograd(doubled)])
    assert {f.oracle for f in result.findings} == {"torch"}
    assert not result.refuses
    assert judge(root(1.0), point, delta, [torch_autograd(root_of_torch)]).verdict is Verdict.AGREES
    assert judge(root(2.0), point, delta, [torch_autograd(root_of_torch)]).verdict == "wrong"


class Inaccurate(torch.autograd.Function):
    """The square, whose gradient is off by 5e-10."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        return 2 * z * delta * (1 + 5e-10)


def opaque_square(factor=1.0):
    """Return the square in code that does not run on balls."""

    def forward(z):
        if z.dtype == object:
            raise TypeError("floating arrays only")
        return z * z, z

    return manual(forward, lambda z, delta: {"z": factor * 2 * z * delta})


def test_one_inaccurate_reference_is_no_proof():
    point, reference = {"z": np.linspace(0.5, 2, 12)}, torch_autograd(Inaccurate.apply)
    with pytest.raises(Disagreement) as excinfo:
        check(opaque_square(), point, [reference])
    assert excinfo.value.verdict == "oracles_conflict"
    assert "torch" in excinfo.value.evidence.reason
    with pytest.raises(Disagreement) as excinfo:
        check(opaque_square(1 + 1e-6), point, [reference])
    assert excinfo.value.verdict == "wrong"


def test_infinite_primals_are_judged_without_a_reference():
    doubled = manual(lambda z: (z * 2, z), lambda z, delta: {"z": 2 * delta})
    result = check(doubled, {"z": np.array([1.0, -np.inf, 2.0])})
    assert result.verdict is Verdict.AGREES
    assert result.judged["z"] == (2, 3)
    wrong = manual(lambda z: (z * 2, z), lambda z, delta: {"z": 2.1 * delta})
    with pytest.raises(Disagreement):
        check(wrong, {"z": np.array([1.0, -np.inf, 2.0])})


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_arcsine_next_to_one(dtype):
    z = POINTS.astype(dtype)
    z[-1] = np.nextafter(z.dtype.type(1), z.dtype.type(0))
    result = check(arcsine(1.0), {"z": z}, [torch_autograd(torch.arcsin)])
    assert result.verdict is Verdict.AGREES
    assert result.judged["z"][0] >= 9


def tie(slope):
    """Return |p − q| / 2, with this slope where p = q."""

    def backward(cache, delta):
        p, q = cache
        sign = np.where(p > q, 0.5, np.where(p == q, slope, -0.5))
        return {"p": delta * sign, "q": -delta * sign}

    return manual(lambda p, q: (np.abs(p - q) / 2, (p, q)), backward)


TIED = {"p": np.array([0.2, 0.5, 0.0, 0.3]), "q": np.array([0.1, 0.5, 0.0, 0.4])}


@pytest.mark.parametrize("slope", [-0.5, 0.25, 0.5])
def test_another_slope_at_a_tie_of_two_primals_is_a_kink(slope):
    reference = [torch_autograd(lambda p, q: (p - q).abs() / 2)]
    assert check(tie(slope), TIED, reference).verdict is Verdict.KINK
    assert check(tie(0.0), TIED, reference, kinks="declared").verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as excinfo:
        check(tie(slope), TIED, reference, kinks="declared")
    assert excinfo.value.verdict == "kink"


def test_slope_beyond_the_subgradients_at_a_tie_is_wrong():
    with pytest.raises(Disagreement) as excinfo:
        check(tie(0.8), TIED, [oracles.torch_autograd(lambda p, q: (p - q).abs() / 2)])
    assert excinfo.value.verdict == "wrong"


def log_softmax(factor=1.0):
    def forward(z):
        shifted = z - z.max(1, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return y, y

    return manual(forward, lambda y, d: {"z": d - factor * np.exp(y) * d.sum(1, keepdims=True)})


def test_infinite_output_that_depends_on_an_input_leaves_its_slope_unknown():
    with pytest.raises(Inconclusive):  # and no refusal by differences, in which −∞ stays −∞
        check(log_softmax(), {"z": np.array([[0.5, -np.inf, 1.0]])})
    check(log_softmax(), {"z": np.array([[0.5, 0.7, 1.0]])})
    with pytest.raises(Disagreement):
        check(log_softmax(1.01), {"z": np.array([[0.5, 0.7, 1.0]])})


def test_infinite_output_of_its_own_input_hides_no_other_slope():
    def log(factor):
        return manual(lambda z: (np.log(z), z), lambda z, d: {"z": factor * d / z})

    point = {"z": np.array([0.0, 0.5, 2.0])}
    with np.errstate(divide="ignore"):
        result = check(log(1.0), point)
        with pytest.raises(Disagreement):
            check(log(1.01), point)
    assert result.judged["z"] == (2, 3)
