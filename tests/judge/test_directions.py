"""Many inputs without a reference: some entries are measured, and directions find what is wrong in the others."""

import numpy as np
import pytest

import oracles


def drawn(*shape):
    """Return the same numbers for a shape in every test, in any order of the tests."""
    return np.random.default_rng(shape).standard_normal(shape)


def softmax(change=lambda dz: dz):
    calls = []

    def forward(z):
        calls.append(z.shape)
        e = np.exp(z - z.max(-1, keepdims=True))
        y = e / e.sum(-1, keepdims=True)
        return y, y

    def backward(y, delta):
        return {"z": change(y * (delta - (delta * y).sum(-1, keepdims=True)))}

    return oracles.manual(forward, backward, name="softmax"), calls


def replaced(entry, value):
    def change(dz):
        dz = dz.copy()
        dz.flat[entry] = value
        return dz

    return change


POINT = {"z": drawn(30, 41)}


def test_a_right_gradient_agrees_within_few_evaluations():
    subject, calls = softmax()
    result = oracles.check(subject, POINT)
    assert result.verdict is oracles.Verdict.AGREES
    judged, entries = result.judged["z"]
    assert 0 < judged < entries == 30 * 41
    assert any("directions" in note for note in result.notes)
    assert len(calls) < 63 * entries / 5


CHANGES = {
    "a factor": lambda dz: 1.01 * dz,
    "zeros": np.zeros_like,
    "transposed": lambda dz: np.ascontiguousarray(dz.ravel()[::-1].reshape(dz.shape)),
    "a row": lambda dz: dz * np.where(np.arange(30) == 17, 0.9, 1.0)[:, None],
    "one entry": replaced(601, 0.5),
    "NaN in one entry": replaced(601, np.nan),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_gradient_is_refused(change):
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(softmax(CHANGES[change])[0], POINT)
    assert refused.value.verdict is oracles.Verdict.WRONG


def test_halving_finds_the_wrong_entry():
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(softmax(CHANGES["one entry"])[0], POINT)
    assert refused.value.evidence.index == (601 // 41, 601 % 41)


@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e4])
def test_kinks_between_the_steps_refuse_no_right_gradient(spread):
    relu = oracles.manual(lambda z: (np.maximum(z, 0.0), z > 0), lambda mask, d: {"z": d * mask}, name="relu")
    result = oracles.check(relu, {"z": spread * drawn(40, 40)})
    assert result.verdict is oracles.Verdict.AGREES


def test_several_primals_are_each_judged():
    def backward(cache, delta):
        x, w = cache
        return {"x": delta @ w.T, "w": x.T @ delta, "b": 1.001 * delta.sum(0)}

    affine = oracles.manual(lambda x, w, b: (x @ w + b, (x, w)), backward, name="affine")
    primals = {"x": drawn(20, 30), "w": drawn(30, 9), "b": drawn(9)}
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(affine, primals)
    assert refused.value.result.worst.quantity == "b"
