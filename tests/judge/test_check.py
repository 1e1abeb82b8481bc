"""`oracles.check` with `manual` and the adapters of manual_bp's layers and losses."""

import numpy as np
import pytest
import torch

import oracles
from manual_bp import HalfSquaredError, Linear, Sequential, SoftmaxCrossEntropy, Tanh
from oracles import Disagreement, Verdict
from oracles.decision.judge import drawn_cotangents

RNG = np.random.default_rng(0)
POINT = {"z": RNG.standard_normal((3, 4)), "W": RNG.standard_normal((4, 2)), "b": RNG.standard_normal((1, 2))}


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(0, keepdims=True)}


def reference(z, W, b):
    return z @ W + b


TORCH = oracles.torch_autograd(reference)
JAX = oracles.jax_vjp(reference)


@pytest.mark.parametrize("against", [[TORCH], [JAX], [TORCH, JAX], []], ids=["torch", "jax", "both", "none"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_correct_pair_agrees(against, dtype):
    point = {n: a.astype(dtype) for n, a in POINT.items()}
    result = oracles.check(oracles.manual(forward, backward), point, against=against)
    assert result.verdict is Verdict.AGREES
    assert 0 <= result.ratio <= 1
    assert {f.quantity for f in result.findings} == {"output", "z", "W", "b"}


@pytest.mark.parametrize("against", [[TORCH], [JAX], []], ids=["torch", "jax", "none"])
def test_wrong_entry_is_refused_with_its_index(against):
    def wrong(cache, delta):
        actual = backward(cache, delta)
        actual["W"][2, 1] *= 1 + 1e-9
        return actual

    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.manual(forward, wrong), POINT, against=against)
    assert isinstance(excinfo.value, AssertionError)
    assert excinfo.value.verdict is Verdict.WRONG
    assert excinfo.value.result.worst.quantity == "W"
    assert excinfo.value.evidence.index == (2, 1)
    assert "W[2, 1]" in str(excinfo.value)


def test_cotangents_as_a_tuple_in_the_primals_order():
    subject = oracles.manual(forward, lambda c, d: tuple(backward(c, d).values()))
    assert oracles.check(subject, POINT, against=[TORCH]).verdict is Verdict.AGREES


def test_missing_cotangents_are_reported_and_not_judged():
    for partial in (lambda c, d: {"z": backward(c, d)["z"]}, lambda c, d: (backward(c, d)["z"], None, None)):
        result = oracles.check(oracles.manual(forward, partial), POINT, against=[TORCH])
        assert result.not_claimed == ("W", "b")
        assert {f.quantity for f in result.findings} == {"output", "z"}


def test_given_delta_is_used():
    ones_only = oracles.manual(forward, lambda c, d: backward(c, np.ones_like(d)))
    assert oracles.check(ones_only, POINT, against=[TORCH], delta=np.ones((3, 2))).verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(ones_only, POINT, against=[TORCH])


def test_drawn_cotangents_are_seeded_signed_and_in_the_outputs_dtype():
    subject = oracles.manual(forward, backward)
    draws = [drawn_cotangents(subject, POINT, np.random.default_rng(5)) for _ in range(2)]
    for first, second in zip(*draws, strict=True):
        assert first.tobytes() == second.tobytes()
        assert (first < 0).any()
        assert (first > 0).any()
        assert first.dtype == np.float64
        assert first.shape == (3, 2)


def test_tuple_outputs_and_integer_primals():
    def take(z, rows):
        return (z[rows], z.sum()), (z, rows)

    def take_back(cache, delta):
        z, rows = cache
        dz = np.full_like(z, delta[1])
        np.add.at(dz, rows, delta[0])
        return {"z": dz}

    point = {"z": POINT["z"], "rows": np.array([0, 2, 2, 1])}
    against = [
        oracles.torch_autograd(lambda z, rows: (z[rows], z.sum())),
        oracles.jax_vjp(lambda z, rows: (z[rows], z.sum())),
    ]
    result = oracles.check(oracles.manual(take, take_back), point, against=against)
    assert result.verdict is Verdict.AGREES
    assert {f.quantity for f in result.findings} == {"output[0]", "output[1]", "z"}

    def forgetful(cache, delta):
        z, rows = cache
        dz = np.full_like(z, delta[1])
        dz[rows] += delta[0]  # a repeated index counts once
        return {"z": dz}

    with pytest.raises(Disagreement):
        oracles.check(oracles.manual(take, forgetful), point, against=against)


def test_layers_losses_and_objectives_adapt():
    network, loss = Sequential(Linear(4, 5), Tanh(), Linear(5, 3)), SoftmaxCrossEntropy()
    params = network.init(np.random.default_rng(1), np.float64)
    target = np.array([0, 2, 1])
    assert oracles.check(oracles.manual_layer(network), {"z": POINT["z"], **params}).verdict is Verdict.AGREES
    assert oracles.check(oracles.manual_loss(loss, target), {"y": POINT["z"]}).verdict is Verdict.AGREES
    whole = oracles.manual_objective(network, loss)
    assert oracles.check(whole, {"z": POINT["z"], "target": target, **params}).verdict is Verdict.AGREES
    targets = oracles.check(oracles.manual_loss(HalfSquaredError()), {"y": POINT["z"], "target": POINT["z"] + 1.0})
    assert targets.not_claimed == ("target",)


def test_oracles_that_contradict_each_other_are_not_the_subjects_fault():
    other = oracles.torch_autograd(lambda z, W, b: z @ W + b + 1e-6 * z.sum(), name="another torch")
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.manual(forward, backward), POINT, against=[TORCH, other])
    assert excinfo.value.verdict is Verdict.ORACLES_CONFLICT


def test_nan_equals_nothing():
    broken = oracles.manual(lambda z: (z * np.nan, z), lambda z, d: {"z": d})
    with pytest.raises(oracles.Inconclusive) as excinfo:
        oracles.check(broken, {"z": POINT["z"]}, against=[oracles.torch_autograd(lambda z: z * float("nan"))])
    assert excinfo.value.verdict == "vacuous"
    assert excinfo.value.result.inconclusive == ("z",)


def test_overflow_to_the_same_infinity_is_right():
    point = {"z": np.array([1e30, -2e30], np.float32)}
    square = oracles.manual(lambda z: (z * z * z, z), lambda z, d: {"z": 3 * z * z * d})
    with np.errstate(over="ignore"):
        against = [oracles.torch_autograd(lambda z: z * z * z)]
        assert oracles.check(square, point, against=against).verdict is not Verdict.WRONG
        flipped = oracles.manual(lambda z: (z * z * z, z), lambda z, d: {"z": -3 * z * z * d})
        with pytest.raises(Disagreement):
            oracles.check(flipped, point, against=against)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (oracles.manual(lambda z: z, lambda c, d: {"z": d}), "must return a pair (y, cache)"),
        (oracles.manual(lambda z: (z + 0, z), lambda c, d: (d, d)), "a tuple of 1 cotangents in the order"),
        (
            oracles.manual(lambda z: (z + 0, z), lambda c, d: {"zz": d}),
            "expected cotangents of the primals ['z'], got one of ['zz']",
        ),
    ],
)
def test_error_for_an_invalid_pair_names_what_is_expected(subject, message):
    with pytest.raises((TypeError, ValueError, Disagreement)) as excinfo:
        oracles.check(subject, {"z": POINT["z"]}, against=[oracles.torch_autograd(lambda z: z.clone())])
    assert message in " ".join(str(excinfo.value).split())


def test_error_for_invalid_primals_or_references_names_them():
    with pytest.raises(TypeError, match="primals\\['z'\\]"):
        oracles.check(oracles.manual(forward, backward), {"z": np.array(["a"])})
    with pytest.raises(TypeError, match="tensor"):
        oracles.check(
            oracles.manual(lambda z: (z + 0, z), lambda c, d: {"z": d}),
            {"z": POINT["z"]},
            against=[oracles.torch_autograd(lambda z: z.detach().numpy())],
        )


def test_torch_takes_every_layout_and_leaves_it_untouched():
    z = POINT["z"][::-1, ::2]
    before = z.tobytes()
    y, pullback = oracles.torch_autograd(lambda z: torch.sin(z))(z=z)
    actual = pullback(np.broadcast_to(np.ones(1), z.shape))
    assert y.tobytes() == np.sin(z).tobytes() or y.shape == z.shape
    assert actual["z"].shape == z.shape
    assert z.tobytes() == before
