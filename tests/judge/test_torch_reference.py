"""Gradients of torch references without torch's compiler and without SymPy are those of torch.autograd.grad."""

import sys

import ml_dtypes
import numpy as np
import pytest

import oracles
from oracles.rule import Perturbation

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(3)
Z = RNG.standard_normal((4, 3))


def several(z, W):
    """Outputs of different shapes and dtypes, one of which depends on no primal, and one twice the same."""
    y = torch.exp(z @ W)  # no fused operation: under perturbation those are taken apart, which rounds otherwise
    return y, y.sum(), torch.ones(2), (z * z).to(torch.float32), y


@pytest.mark.parametrize("perturbed", [False, True])
def test_gradients_of_several_outputs_are_those_of_autograd(perturbed):
    primals = {"z": Z, "W": RNG.standard_normal((3, 2))}
    rule = oracles.torch_autograd(several)
    outputs, pullback = rule(**primals)
    delta = tuple(RNG.standard_normal(y.shape).astype(y.dtype) for y in outputs)
    tensors = {n: torch.from_numpy(a).requires_grad_() for n, a in primals.items()}
    parts = [(y, torch.from_numpy(np.asarray(d))) for y, d in zip(several(**tensors), delta, strict=True)]
    parts = [(y, d) for y, d in parts if y.requires_grad]
    expected = torch.autograd.grad([y for y, _ in parts], list(tensors.values()), [d for _, d in parts])
    if perturbed:
        _, actual = rule.evaluate_perturbed(primals, delta, Perturbation(np.random.default_rng(0), 0.0))
        actual = dict(zip(primals, actual.values(), strict=True))
    else:
        # torch refuses to pull back to an output without a graph; the others are pulled back together, twice.
        rest = oracles.torch_autograd(lambda z, W: tuple(y for y in several(z, W) if y.requires_grad))
        _, pullback = rest(**primals)
        cotangents = tuple(d.numpy() for _, d in parts)
        actual = pullback(cotangents)
        assert all(np.array_equal(actual[n], again) for n, again in pullback(cotangents).items())
    for n, gradient in zip(tensors, expected, strict=True):
        np.testing.assert_array_equal(actual[n], gradient.numpy())


@pytest.mark.parametrize("f", [lambda z: z, lambda z: z.view(3, 4), lambda z: (z, z.T)])
def test_a_cotangent_passes_through_where_nothing_is_computed(f):
    rule = oracles.torch_autograd(f)
    outputs, pullback = rule(z=Z)
    delta = tuple(map(np.ones_like, outputs)) if isinstance(outputs, tuple) else np.ones_like(outputs)
    for seed in range(3):  # the first evaluation is recorded
        perturbation = Perturbation(np.random.default_rng(seed), 0.0)
        _, gradients = rule.evaluate_perturbed({"z": Z}, delta, perturbation)
        np.testing.assert_array_equal(gradients["z"], pullback(delta)["z"])


def test_a_cotangent_of_another_shape_is_none_of_the_reference():
    _, pullback = oracles.torch_autograd(torch.tanh)(input=Z)
    with pytest.raises(oracles.ReferenceFailed, match=r"\(4, 3\).*\(3,\)"):
        pullback(np.ones(3))


def test_bfloat16():
    z = Z.astype(ml_dtypes.bfloat16)
    y, pullback = oracles.torch_autograd(lambda z: z * 2)(z=z)
    assert pullback(np.ones_like(y))["z"].dtype == ml_dtypes.bfloat16


def test_perturbed_values_do_not_depend_on_whether_the_compiler_is_loaded(monkeypatch):
    rule = oracles.torch_autograd(lambda z: torch.nn.functional.silu(z) / (1 + z * z))
    delta = np.ones_like(Z)

    def values():
        return rule.evaluate_perturbed({"z": Z}, delta, Perturbation(np.random.default_rng(1), 2.0**-20))

    import torch._dynamo  # so that it is loaded

    (y,), gradients = values()
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    (again,), same = values()
    np.testing.assert_array_equal(y, again)
    np.testing.assert_array_equal(gradients["z"], same["z"])
    assert np.any(y != rule(z=Z)[0])


@pytest.mark.slow
def test_a_compiled_reference_is_judged():
    compiled = torch.compile(lambda z: torch.tanh(z) * z, backend="eager")

    def backward(cache, delta):
        z, y = cache
        return {"z": delta * (y + z * (1 - y * y))}

    subject = oracles.manual(lambda z: (np.tanh(z) * z, (z, np.tanh(z))), backward)
    assert oracles.check(subject, {"z": Z}, [oracles.torch_autograd(compiled)]).verdict is oracles.Verdict.AGREES


def test_complex_outputs_have_gradients():
    z = Z[0]
    y, pullback = oracles.torch_autograd(lambda z: torch.complex(z, 0.5 * z))(z=z)
    assert y.names == ("output.real", "output.imag")
    assert np.array_equal(y[0], z)
    assert np.array_equal(y[1], 0.5 * z)
    assert np.array_equal(pullback((np.array([1.0, 0, 1]), np.array([0.0, 2, 2])))["z"], [1.0, 1.0, 2.0])


ROOTS = {
    "an integer primal": lambda z, n: z * torch.sqrt(n + 1.0) * 0.1,
    "a number as a tensor": lambda z, n: z * torch.sqrt(n + torch.tensor(1.0)) * torch.tensor(0.1),
    "a product with zeros": lambda z, n: 0.1 * z @ (torch.zeros(3, 3) + torch.diag(torch.sqrt(n + 1.0))),
    "a product of fresh tensors": lambda z, n: z @ torch.diag(torch.full((3,), 0.1)) @ torch.diag(torch.sqrt(n + 1.0)),
}


@pytest.mark.parametrize("name", ROOTS)
def test_what_a_reference_makes_is_float64_where_a_primal_is(name):
    roots = oracles.manual(
        lambda z, n: (z * np.sqrt(n + 1.0) * 0.1, n), lambda n, delta: {"z": delta * np.sqrt(n + 1.0) * 0.1}
    )
    point = {"z": np.random.default_rng(0).standard_normal((4, 3)), "n": np.arange(3)}
    before = torch.get_default_dtype()
    assert oracles.check(roots, point, [oracles.torch_autograd(ROOTS[name])]).verdict == "agrees"
    assert torch.get_default_dtype() == before
    off = oracles.manual(
        lambda z, n: (z * np.sqrt(n + 1.0) * 0.1, n),
        lambda n, delta: {"z": delta * np.sqrt(n + 1.0) * float(np.float32(0.1))},
    )
    with pytest.raises(oracles.Disagreement):
        oracles.check(off, point, [oracles.torch_autograd(ROOTS[name])])
