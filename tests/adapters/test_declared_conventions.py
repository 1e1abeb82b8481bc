"""Declared conventions: the correct one agrees, a wrong one is refused, and the report names the one that fits."""

import dense_classes as classes
import numpy as np
import pytest
import torch
from dense_classes import AT, TORCH
from pairs import PAIRS, slow_except, softmax_of

import oracles
from oracles import Disagreement, InvalidInput, Verdict, declared

RNG = np.random.default_rng(13)
DENSE = PAIRS["dense"]
POINT = DENSE.at(1)


def dense(scale=1.0, transposed=False):
    """A dense layer whose dW is multiplied by a number, or whose W is stored transposed."""

    def forward(z, W, b):
        return DENSE.forward(z, W.T if transposed else W, b)

    def backward(cache, d):
        gradients = DENSE.backward(cache, d)
        dW = gradients["W"] * (scale(len(d)) if callable(scale) else scale)
        return gradients | {"W": dW.T.copy() if transposed else dW}

    return oracles.manual(forward, backward)


def columns():
    """Samples in columns, biases as plain vectors."""

    def forward(z, W, b):
        return W @ z + b[:, None], (z, W)

    def backward(cache, d):
        z, W = cache
        return {"z": W.T @ d, "W": d @ z.T, "b": d.sum(1)}

    return oracles.manual(forward, backward)


COLUMNS = {"z": "nk->kn", "W": "km->mk", "b": "1m->m", "output": "nm->mn"}


@pytest.mark.parametrize("dtype", slow_except(("float64",), ("float64", "float32", "float16")))
@pytest.mark.parametrize(
    "subject",
    [
        declared(dense(0.5), scale={"W": 0.5}),
        declared(dense(lambda n: 1 / n), scale={"W": lambda z, **_: 1 / len(z)}),
        declared(dense(-1.0), scale={"W": -1}),
        declared(dense(transposed=True), layout={"W": "ij->ji"}),
        declared(dense(transposed=True), layout={"W": (np.transpose, np.transpose)}),
        declared(dense(2.0, transposed=True), layout={"W": "ij->ji"}, scale={"W": 2}),
        declared(columns(), layout=COLUMNS),
        declared(dense()),
    ],
    ids=["half", "mean", "minus", "transposed", "functions", "transposed and doubled", "columns", "nothing"],
)
def test_correct_declaration_agrees(subject, dtype):
    result = oracles.check(subject, DENSE.at(1, dtype), [DENSE.torch])
    assert result.verdict is Verdict.AGREES
    assert {f.quantity for f in result.findings} == {"output", "z", "W", "b"}


@pytest.mark.parametrize(
    ("subject", "would"),
    [
        (declared(dense(0.5), scale={"W": 0.25}), "scale={'W': 0.5} would"),
        (declared(dense(), scale={"W": 2.0}), "scale={'W': 1} would"),
        (declared(dense(lambda n: 1 / n), scale={"W": lambda z, **_: 1.0}), "scale={'W': 0.333333 times that} would"),
        (declared(dense(-1.0), scale={"W": 1.0}), "scale={'W': -1} would"),
        (declared(dense(0.5), scale={"b": 1.0}), "scale={'W': 0.5} would"),
    ],
)
def test_a_wrong_factor_is_refused_with_the_one_that_fits(subject, would):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(subject, POINT, [DENSE.torch])
    assert excinfo.value.verdict is Verdict.WRONG
    assert excinfo.value.result.worst.quantity == "W"
    assert f"the declaration does not fit; {would}" in " ".join(str(excinfo.value).split())


def image_layer():
    """Channels last: y = x * w over the channels."""

    def backward(cache, d):
        x, w = cache
        return {"x": d * w, "w": (d * x).sum((0, 1, 2))}

    return oracles.manual(lambda x, w: (x * w, (x, w)), backward)


IMAGE = {"x": RNG.standard_normal((2, 3, 2, 2)), "w": RNG.standard_normal(3)}
CHANNELS = oracles.torch_autograd(lambda x, w: x * w[:, None, None])


def test_images():
    right = {"x": "NCHW->NHWC", "output": "NCHW->NHWC"}
    assert oracles.check(declared(image_layer(), layout=right), IMAGE, [CHANNELS]).verdict is Verdict.AGREES
    wrong = {"x": "NCHW->NHWC", "output": "NCHW->NWHC"}
    with pytest.raises(Disagreement, match=r"does not fit; layout=\{'(x|output)': 'NCHW->\w+'\} would"):  # either would
        oracles.check(declared(image_layer(), layout=wrong), IMAGE, [CHANNELS])


@pytest.mark.slow
def test_a_wrong_permutation_is_refused_with_the_one_that_fits():
    square = POINT | {"W": RNG.standard_normal((4, 4)), "b": RNG.standard_normal((1, 4))}
    with pytest.raises(Disagreement, match=r"the declaration does not fit; layout=\{'W': 'ij->ij'\} would"):
        oracles.check(declared(dense(), layout={"W": "ij->ji"}), square, [DENSE.torch])


def probabilities(fused=True):
    """A cross-entropy of probabilities, whose gradient is that of the logits behind them, or its own."""

    def forward(a, target):
        return -np.log(a[np.arange(len(a)), target]).mean(), (a, target)

    def backward(cache, d):
        a, target = cache
        hot = np.eye(a.shape[1])[target]
        return {"a": d * ((a - hot) if fused else -hot / a) / len(a)}

    return oracles.manual(forward, backward)


LOGITS = {"a": RNG.standard_normal((3, 4)), "target": np.array([0, 3, 1])}
CROSS = oracles.torch_autograd(lambda a, target: torch.nn.functional.cross_entropy(a, target))


def test_fused():
    subject = declared(probabilities(), fused={"a": softmax_of})
    assert oracles.check(subject, LOGITS, [CROSS]).verdict is Verdict.AGREES
    with pytest.raises(Disagreement, match="fused"):
        oracles.check(declared(probabilities(fused=False), fused={"a": softmax_of}), LOGITS, [CROSS])
    with pytest.raises(Disagreement):  # undeclared, it is refused
        oracles.check(probabilities(), {**LOGITS, "a": softmax_of(LOGITS["a"])})


def relu(slope):
    return oracles.manual(lambda z: (np.maximum(z, 0), z), lambda z, d: {"z": d * np.where(z == 0, slope, z > 0)})


def test_kinks():
    at, against = {"z": np.array([0.0, 1.0, -2.0, 0.0])}, [oracles.torch_autograd(torch.relu)]
    for slope in (0.0, 0.5, 1.0):
        right = declared(relu(slope), kinks={"z": {0.0: slope}})
        assert not oracles.check(right, at, against, kinks="declared").refuses
        assert not oracles.check(right, at, against).refuses
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(declared(relu(0.5), kinks={"z": {0.0: 1.0}}), at, against)
    message = " ".join(str(excinfo.value).split())
    assert "at z[0] = 0 the declared derivative is 1, the subject's is 0.5" in message
    assert "kinks={'z': {0.0: 0.5}} would" in message


def test_other_bug_with_a_correct_declaration_is_refused():
    wrong = oracles.manual(DENSE.forward, lambda c, d: DENSE.backward(c, d) | {"W": 0.5 * c[0].T @ np.abs(d)})
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(declared(wrong, scale={"W": 0.5}), POINT, [DENSE.torch])
    assert excinfo.value.result.worst.quantity == "W"
    assert "declaration" not in str(excinfo.value)


def test_other_adapters_declare_too():
    class Halved(classes.Attributes):
        def pulled(self, delta):
            dz, dW, db = super().pulled(delta)
            return dz, dW / len(delta), db / len(delta)

    mean = {n: lambda z, **_: 1 / len(z) for n in ("W", "b")}
    subject = declared(oracles.stateful(Halved, params=["W", "b"]), scale=mean)
    assert oracles.check(subject, AT, [TORCH]).verdict is Verdict.AGREES
    isolated = oracles.check(
        declared(dense(transposed=True), layout={"W": "ij->ji"}), POINT, [DENSE.torch], isolate=True
    )
    assert isolated.verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": {"V": 2.0}}, "declared: scale: expected names of the primals z, W, b, got V"),
        ({"layout": {"outputs": "ij->ji"}}, "declared: layout: expected names of the primals z, W, b, got outputs"),
        ({"scale": {"W": 0.0}}, "scale of W: expected a finite number other than 0, got 0.0"),
        ({"layout": {"W": "ij->jk"}}, "expected each letter once on either side, as 'NCHW->NHWC', got 'ij->jk'"),
        (
            {"layout": {"W": "ji"}},
            "layout of W: expected two orders of the same axes, as 'ij->ji', or two functions, got 'ji'",
        ),
        ({"layout": {"W": "ijk->kji"}}, "expected axes ijk, got an array of shape (4, 2)"),
    ],
)
def test_invalid_declarations(options, message):
    with pytest.raises((InvalidInput, ValueError, Disagreement)) as excinfo:
        oracles.check(declared(dense(), **options), POINT, [DENSE.torch])
    assert message in " ".join(str(excinfo.value).split())


def test_integers_have_no_scale():
    pair = PAIRS["embedding"]
    subject = declared(oracles.manual(pair.forward, pair.backward), scale={"i": 2.0})
    with pytest.raises(InvalidInput, match=r"declared: .* got i"):
        oracles.check(subject, pair.at(), [pair.torch])
