"""Adapters of functions: correct pairs agree in every dtype, wrong ones are refused under their names."""

import warnings

import numpy as np
import pytest
from pair_bugs import BUGS, QUICK
from pairs import DTYPES, PAIRS, accepted, slow_except, softmax_of

import oracles
from manual_bp import HalfSquaredError, Linear, Sequential, Sigmoid, Softmax, SoftmaxCrossEntropy, Tanh
from oracles import Disagreement, Verdict

RNG = np.random.default_rng(1)


def adapt(pair, backward=None):
    return oracles.manual(pair.forward, backward or pair.backward)


@pytest.mark.parametrize("dtype", slow_except(("float64", "bfloat16"), DTYPES))
@pytest.mark.parametrize("name", PAIRS)
def test_correct_pairs_agree(name, dtype):
    PAIRS[name].assert_agrees(adapt(PAIRS[name]), dtype, seeds=1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_correct_pairs_agree_at_many_points(name, dtype):
    pair = PAIRS[name]
    for seed in range(10):
        at = pair.at(seed, dtype, rows=1 + seed % 5)
        accepted(adapt(pair), at, [pair.torch], dtype, seed=seed)


@pytest.mark.deep
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_correct_pairs_pass_without_a_reference(name, dtype):
    """Where 1 − y² saturates, or y (d − Σ d y) cancels, torch loses digits too: reported, not refused."""
    pair = PAIRS[name]
    for seed in range(5):
        with warnings.catch_warnings():
            # In bfloat16 rounding reaches a tenth of the gradient after a few operations.
            warnings.simplefilter("ignore" if dtype == "bfloat16" else "error", oracles.InconclusiveWarning)
            verdict = oracles.check(adapt(pair), pair.at(seed, dtype, rows=1 + seed % 5), seed=seed).verdict
        loses_digits = name in ("tanh", "cell", "softmax") and verdict is Verdict.UNSTABLE
        assert verdict is Verdict.AGREES or loses_digits or (dtype == "bfloat16" and verdict is Verdict.VACUOUS)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_digits_that_torch_loses_too_are_not_refused(dtype):
    """1 − y² where tanh saturates: torch's own backward loses as many; without torch, nothing can be compared."""
    at = {"z": np.array([-2.5, 3.5, 9.0, 0.1], DTYPES[dtype])}
    for against in ([PAIRS["tanh"].torch], []):
        result = oracles.check(adapt(PAIRS["tanh"]), at, against)
        assert not result.refuses
        assert result.verdict in (Verdict.AGREES, Verdict.UNSTABLE)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_few_digits_lost_are_not_refused_without_a_reference(dtype):
    """Where 1 − y² saturates in some entries: no framework can be asked whether it loses as many."""
    result = oracles.check(adapt(PAIRS["cell"]), PAIRS["cell"].at(3, dtype, rows=4), seed=3)
    assert result.verdict is Verdict.UNSTABLE
    assert not result.refuses


def test_half_of_the_digits_lost_are_refused_without_a_reference():
    narrow = oracles.manual(PAIRS["tanh"].forward, lambda y, d: {"z": (d * (1 - y * y)).astype("f4").astype("f8")})
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(narrow, PAIRS["tanh"].at())
    assert excinfo.value.verdict is Verdict.UNSTABLE


@pytest.mark.parametrize("name", ["dense", "tanh", "softmax", "layer norm", "embedding", "conv", "two outputs", "cell"])
def test_zero_rows_agree(name):
    pair = PAIRS[name]
    result = oracles.check(adapt(pair), pair.at(rows=0), against=[pair.torch])
    assert not result.refuses
    assert result.verdict is not Verdict.WRONG


@pytest.mark.parametrize("lay", [np.asfortranarray, lambda a: np.repeat(a, 2, -1)[..., ::2], lambda a: a[::-1]])
def test_primals_keep_their_strides(lay):
    pair, strides = PAIRS["dense"], []

    def forward(z, W, b):
        strides.append(z.strides)
        return pair.forward(z, W, b)

    at = {n: lay(a) for n, a in pair.at().items()}
    assert oracles.check(oracles.manual(forward, pair.backward), at, against=[pair.torch]).verdict is Verdict.AGREES
    assert at["z"].strides in strides or at["z"].strides[0] < 0


@pytest.mark.parametrize("bug", slow_except(QUICK, BUGS))
def test_planted_bugs_are_refused(bug):
    BUGS[bug].assert_explains(BUGS[bug].refusal_of(adapt))


@pytest.mark.slow
@pytest.mark.parametrize("bug", [b for b in BUGS if b != "float16 inside a float64 path"])
def test_planted_bugs_are_refused_without_a_reference(bug):
    error = BUGS[bug].refusal_of(adapt, against_torch=False)
    assert error.verdict is Verdict.WRONG
    assert error.result.worst.quantity == BUGS[bug].quantity


@pytest.mark.parametrize(
    "backward",
    [lambda c, d: {"z": d @ c[1].T}, lambda c, d: (d @ c[1].T, None, None), lambda c, d: {"z": d @ c[1].T, "W": None}],
    ids=["missing", "None in a tuple", "None in a dict"],
)
def test_missing_gradients_are_not_reported_as_agreeing(backward):
    pair = PAIRS["dense"]
    for against in ([pair.torch], []):
        result = oracles.check(oracles.manual(pair.forward, backward), pair.at(), against)
        assert "W" in result.not_claimed
        assert "b" in result.not_claimed
        assert {f.quantity for f in result.findings} == {"output", "z"}


def test_no_gradients_at_all_are_vacuous():
    pair = PAIRS["dense"]
    result = oracles.check(oracles.manual(pair.forward, lambda c, d: {}), pair.at(), against=[pair.torch])
    assert result.verdict is Verdict.VACUOUS
    assert result.not_claimed == ("z", "W", "b")


def test_a_write_that_changes_nothing_the_second_time_is_reported():
    """ReLU in place: after the first call, its input has no negative entries left."""

    def forward(z):
        np.maximum(z, 0, out=z)
        return z.copy(), z > 0

    at = {"z": RNG.standard_normal((3, 4))}
    subject = oracles.manual(forward, lambda mask, d: {"z": d * mask})
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(subject, at, against=[oracles.torch_autograd(lambda z: z.relu())])
    assert "z was written into" in str(excinfo.value)
    assert "fix:    z = z.copy()" in str(excinfo.value)
    assert (at["z"] < 0).any()


def test_an_exception_of_the_subject_is_a_finding():
    def forward(z):
        raise ZeroDivisionError("of the subject")

    def backward(cache, d):
        raise KeyError("W")

    at = {"z": RNG.standard_normal(3)}
    for subject, message in (
        (oracles.manual(forward, backward), "the forward raised ZeroDivisionError: of the subject"),
        (oracles.manual(lambda z: (z * 2, z), backward), "the pullback raised KeyError: 'W'"),
    ):
        with pytest.raises(Disagreement, match=message) as excinfo:
            oracles.check(subject, at)
        assert excinfo.value.result.worst.quantity == "the call"
        assert isinstance(excinfo.value.__cause__, ZeroDivisionError | KeyError)


def sigmoid(x, prime=False):
    s = 1 / (1 + np.exp(-x))
    return s * (1 - s) if prime else s


SIGMOID = oracles.torch_autograd(lambda z: z.sigmoid())


@pytest.mark.parametrize(
    "subject",
    [
        oracles.elementwise(sigmoid, lambda z: sigmoid(z, prime=True)),
        oracles.elementwise(sigmoid, lambda a: a * (1 - a), of="output"),
    ],
    ids=["of the input", "of the output"],
)
def test_elementwise_agrees(subject):
    for dtype in ("float64", "float32", "float16"):
        at = {"z": RNG.standard_normal((3, 4)).astype(dtype)}
        assert oracles.check(subject, at, against=[SIGMOID]).verdict is Verdict.AGREES
    assert oracles.check(subject, {"z": np.zeros((0, 4))}, against=[SIGMOID]).refuses is False


@pytest.mark.parametrize(
    ("derivative", "of", "message"),
    [
        (lambda a: a * (1 - a), "input", None),  # meant for the output
        (lambda z: sigmoid(z), "input", None),  # prime forgotten
        (lambda a: a * (1 + a), "output", None),
        (lambda a: 0 * a, "output", "zero"),
        (lambda a: 2 * a * (1 - a), "output", "2 times"),
        (lambda a: (a * (1 - a)).mean(), "output", None),
    ],
)
def test_elementwise_bugs_are_refused(derivative, of, message):
    with pytest.raises(Disagreement, match=message) as excinfo:
        oracles.check(
            oracles.elementwise(sigmoid, derivative, of=of), {"z": RNG.standard_normal((3, 4))}, against=[SIGMOID]
        )
    assert excinfo.value.verdict is Verdict.WRONG
    assert excinfo.value.result.worst.quantity == "z"


def loss_and_grad(y, target):
    """Mean over the rows of the cross-entropy, and its gradient."""
    a, rows = softmax_of(y), np.arange(len(y))
    dy = a.copy()
    dy[rows, target] -= 1
    return -np.log(a[rows, target]).mean(), dy / len(y)


CROSS = PAIRS["cross-entropy"]
AT_LOSS = {"y": CROSS.at()["z"], "target": CROSS.at()["target"]}
TORCH_LOSS = oracles.torch_autograd(lambda y, target: CROSS.reference(y, target))


def test_value_and_grad_agrees():
    assert oracles.check(oracles.value_and_grad(loss_and_grad), AT_LOSS, against=[TORCH_LOSS]).verdict == "agrees"
    squares = oracles.value_and_grad(lambda y, t: (((y - t) ** 2).sum() / 2, {"y": y - t, "t": t - y}))
    at = {"y": RNG.standard_normal((3, 2)), "t": RNG.standard_normal((3, 2))}
    assert oracles.check(squares, at).verdict is Verdict.AGREES
    by_rows = oracles.value_and_grad(lambda y, t: (((y - t) ** 2).sum(1) / 2, (y - t, t - y)))
    assert oracles.check(by_rows, at).verdict is Verdict.AGREES
    one = oracles.value_and_grad(lambda y, t: (((y - t) ** 2).sum() / 2, t - y), wrt="t")
    assert oracles.check(one, at).not_claimed == ("y",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda v, g: (v, g * len(g)), "a sum where a mean belongs"),
        (lambda v, g: (v, g * 2), "2 times the oracle's"),
        (lambda v, g: (v, -g), "-1 times the oracle's"),
        (lambda v, g: (v, 0 * g), "zero"),
        (lambda v, g: (v * len(g), g), "output"),
        (lambda v, g: (v, g.sum(0)), "shape"),
    ],
)
def test_value_and_grad_bugs_are_refused(wrong, message):
    subject = oracles.value_and_grad(lambda y, target: wrong(*loss_and_grad(y, target)))
    with pytest.raises(Disagreement, match=message) as excinfo:
        oracles.check(subject, AT_LOSS, against=[TORCH_LOSS])
    assert excinfo.value.verdict is Verdict.WRONG


@pytest.mark.parametrize("arrays", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", slow_except(("float32",), DTYPES))
def test_pairs_of_a_framework_agree(arrays, dtype):
    if arrays == "torch":
        import torch as xp
    else:
        import jax.numpy as xp

    def forward(z, W):
        y = xp.tanh(z @ W)
        return y, (z, W, y)

    def backward(cache, d):
        z, W, y = cache
        e = d * (1 - y * y)
        return e @ W.T, z.T @ e

    at = {n: a for n, a in PAIRS["dense"].at(2, dtype).items() if n != "b"}
    against = [oracles.torch_autograd(lambda z, W: (z @ W).tanh())]
    assert oracles.check(oracles.manual(forward, backward, arrays=arrays), at, against).verdict is Verdict.AGREES
    late = oracles.manual(forward, lambda c, d: (d @ c[1].T, backward(c, d)[1]), arrays=arrays)
    with pytest.raises(Disagreement):
        oracles.check(late, at, against)


def test_our_own_layers_agree_as_pairs():
    network = Sequential(Linear(4, 3), Tanh(), Linear(3, 3), Sigmoid(), Linear(3, 2), Softmax())
    params = network.init(np.random.default_rng(2))
    subject = oracles.manual(
        lambda z, **p: network.forward(p, z),
        lambda c, d: (lambda dz, grads: {"z": dz, **grads})(*network.backward(c, d)),
    )
    assert oracles.check(subject, {"z": RNG.standard_normal((3, 4)), **params}).verdict is Verdict.AGREES
    for loss, target in ((SoftmaxCrossEntropy(), np.array([0, 1, 1])), (HalfSquaredError(), RNG.random((3, 4)))):
        pair = oracles.manual(lambda y, f=loss, t=target: f.forward(y, t), lambda c, d, f=loss: f.backward(c, d))
        assert oracles.check(pair, {"y": RNG.standard_normal((3, 4))}).verdict is Verdict.AGREES


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_the_cotangent_of_a_number_may_be_a_number_of_pythons(dtype):
    point = {"a": np.array(1.5, dtype), "z": np.array([1.0, -2.0, 0.5], dtype)}
    square = [oracles.torch_autograd(lambda a, z: (a * z * z).sum())]

    def squares(factor, kind):
        return oracles.manual(
            lambda a, z: ((a * z * z).sum(), (a, z)),
            lambda c, d: {"a": kind(factor * d * (c[1] ** 2).sum()), "z": 2 * d * c[0] * c[1]},
        )

    for kind in (float, np.asarray, lambda x: x):
        assert oracles.check(squares(1, kind), point, square).verdict is Verdict.AGREES
        assert oracles.check(squares(1, kind), point).verdict is Verdict.AGREES
        with pytest.raises(Disagreement):
            oracles.check(squares(2, kind), point, square)
    constant = oracles.manual(lambda a, z: ((z * z).sum() + 3 * a, z), lambda z, d: {"a": 3 * float(d), "z": 2 * d * z})
    assert oracles.check(constant, point).verdict is Verdict.AGREES


def test_a_number_of_pythons_is_no_cotangent_of_an_array():
    for z in (np.array([1.5]), np.array([[1.0, 2.0]])):
        subject = oracles.manual(lambda z: ((z * z).sum(), z), lambda z, d: {"z": float((2 * d * z).sum())})
        with pytest.raises(Disagreement, match="expected"):
            oracles.check(subject, {"z": z})
    subject = oracles.manual(lambda z: (z * z, z), lambda z, d: {"z": bool(2 * d * z)})
    with pytest.raises(Disagreement):
        oracles.check(subject, {"z": np.array(1.5)})
