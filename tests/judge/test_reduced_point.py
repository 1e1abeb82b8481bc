"""Large points: a gross error is decided and diagnosed at a part of the point, with the verdict of the whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import oracles


def layer_norm(change=lambda dx: dx):
    def forward(x, gain):
        centred = x - x.mean(-1, keepdims=True)
        inverse = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
        return centred * inverse * gain, (centred * inverse, inverse, gain)

    def backward(cache, delta):
        h, inverse, gain = cache
        dh = delta * gain
        dx = inverse * (dh - dh.mean(-1, keepdims=True) - h * (dh * h).mean(-1, keepdims=True))
        return {"x": change(dx), "gain": (delta * h).sum(0)}

    return oracles.manual(forward, backward, name="layer_norm")


def layer_norm_reference(x, gain):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, eps=1e-5)


def drawn(*shape):
    """Return the same numbers for a shape in every test, in any order of the tests."""
    return np.random.default_rng(shape).standard_normal(shape)


def norm_point(rows, columns):
    return {"x": drawn(rows, columns), "gain": drawn(columns)}


def refusal(subject, primals, reference):
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(subject, primals, [oracles.torch_autograd(reference)])
    return refused.value


def size(primals):
    return sum(a.size for a in primals.values() if a.dtype.kind == "f")


CHANGES = {
    "factor": (lambda dx: 0.99 * dx, oracles.Verdict.WRONG),
    "sign": (lambda dx: -dx, oracles.Verdict.WRONG),
    "one entry": (lambda dx: dx + 1e-3 * (np.arange(dx.size) == 7 * dx.size // 9).reshape(dx.shape), None),
    "NaN": (lambda dx: np.where(dx == dx.max(), np.nan, dx), None),
    "float32 inside": (lambda dx: dx.astype(np.float32).astype(np.float64), oracles.Verdict.UNSTABLE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_gross_error_is_decided_at_a_part_of_the_point(change):
    change, verdict = CHANGES[change]
    primals = norm_point(96, 160)
    refused = refusal(layer_norm(change), primals, layer_norm_reference)
    assert refused.verdict is (verdict or oracles.Verdict.WRONG)
    assert refused.result.setting.primals["x"].shape == (96, 160)
    smaller = refused.result.reduced["x"].setting
    assert size(smaller.primals) <= 64
    assert smaller.primals["x"].shape[0] != smaller.primals["x"].shape[1]


def test_the_diagnosis_is_that_of_the_whole():
    refused = refusal(layer_norm(CHANGES["factor"][0]), norm_point(300, 200), layer_norm_reference)
    assert "0.99 times" in refused.diagnosis
    assert "decided and diagnosed at a part of it" in str(refused)


def test_a_right_large_point_agrees_without_a_smaller_one():
    result = oracles.check(layer_norm(), norm_point(96, 160), [oracles.torch_autograd(layer_norm_reference)])
    assert result.verdict is oracles.Verdict.AGREES
    assert not result.reduced


def test_many_right_entries_need_more_samples_in_their_rows_alone():
    oracle = oracles.torch_autograd(layer_norm_reference)
    shapes = []

    def evaluate_perturbed(primals, delta, perturbation):
        shapes.append(primals["x"].shape)
        return oracle.evaluate_perturbed(primals, delta, perturbation)

    primals = norm_point(4000, 50)
    primals = {n: a.astype(np.float32) for n, a in primals.items()}
    counted = replace(oracle, evaluate_perturbed=evaluate_perturbed)
    result = oracles.check(layer_norm(), primals, [counted])
    assert result.verdict is oracles.Verdict.AGREES
    # Two samples for each of three cotangents, and a few for what the subject must keep with itself.
    assert shapes.count((4000, 50)) <= 8
    assert len(set(shapes)) > 1


def test_rows_that_depend_on_one_another_are_not_taken_apart():
    def softmax_of_columns(change):
        def forward(x):
            y = np.exp(x - x.max(0))
            y = y / y.sum(0)
            return y, y

        return oracles.manual(forward, lambda y, d: {"x": change * y * (d - (d * y).sum(0))}, name="softmax of columns")

    point = {"x": drawn(3000, 40).astype(np.float32)}
    reference = oracles.torch_autograd(lambda x: torch.softmax(x, 0))
    assert oracles.check(softmax_of_columns(np.float32(1)), point, [reference]).verdict is oracles.Verdict.AGREES
    with pytest.raises(oracles.Disagreement):
        oracles.check(softmax_of_columns(np.float32(0.99)), point, [reference])


def cross_entropy(scale=1.0):
    def forward(z, target):
        e = np.exp(z - z.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        return -np.log(p[np.arange(len(z)), target]).mean(), (p, target)

    def backward(cache, delta):
        p, target = cache
        dz = p.copy()
        dz[np.arange(len(p)), target] -= scale
        return {"z": dz * delta / len(p)}

    return oracles.manual(forward, backward, name="cross_entropy")


def test_indices_fit_the_axis_that_is_cut():
    primals = {"z": drawn(24, 500), "target": np.random.default_rng(0).integers(400, 500, 24)}
    refused = refusal(cross_entropy(0.99), primals, lambda z, target: torch.nn.functional.cross_entropy(z, target))
    smaller = refused.result.reduced["z"].setting.primals
    assert smaller["z"].shape[1] < 100
    assert smaller["target"].max() < smaller["z"].shape[1]


def test_a_subject_that_accepts_one_shape_alone_is_refused_at_the_whole_point():
    def forward(x):
        assert x.shape == (40, 50)
        return np.tanh(x), np.tanh(x)

    subject = oracles.manual(forward, lambda y, delta: {"x": 1.1 * delta * (1 - y * y)}, name="tanh of one shape")
    refused = refusal(subject, {"x": drawn(40, 50)}, torch.tanh)
    assert refused.verdict is oracles.Verdict.WRONG
    assert not refused.result.reduced


@pytest.mark.parametrize("transposed", [False, True])
def test_a_square_array_of_one_fixed_extent_is_cut_along_the_other(transposed):
    """The width belongs to the layer; the batch is as long by chance."""
    shapes, axis = [], 0 if transposed else -1

    def forward(x):
        assert x.shape[axis] == 150
        shapes.append(x.shape)
        y = np.tanh(x)
        return y, y

    point = {"x": drawn(150, 150)}
    subjects = [oracles.manual(forward, lambda y, d, f=f: {"x": f * d * (1 - y * y)}) for f in (1.0, 1.01)]
    assert oracles.check(subjects[0], point, [oracles.torch_autograd(torch.tanh)]).verdict is oracles.Verdict.AGREES
    assert sum(np.prod(shape) == 150 * 150 for shape in shapes) == 3  # the others are at a part
    refused = refusal(subjects[1], point, torch.tanh)
    assert refused.verdict is oracles.Verdict.WRONG
    smaller = refused.result.reduced["x"].setting.primals["x"].shape
    assert smaller[axis] == 150
    assert smaller[axis + 1] < 40


def test_an_error_that_needs_the_size_is_not_lost():
    """The last rows of blocks of 32 are wrong: a part without a remainder would not show it."""

    def backward(y, delta):
        dx = delta * (1 - y * y)
        dx[len(dx) // 32 * 32 :] = 0.0
        return {"x": dx}

    subject = oracles.manual(lambda x: (np.tanh(x), np.tanh(x)), backward, name="blocks of 32")
    refused = refusal(subject, {"x": drawn(77, 40)}, torch.tanh)
    assert refused.verdict is oracles.Verdict.WRONG


def test_ties_of_a_large_point_are_no_error():
    subject = oracles.manual(
        lambda x: (np.maximum(x, 0), x >= 0), lambda positive, delta: {"x": delta * positive}, name="relu"
    )
    x = np.random.default_rng(0).integers(-2, 3, (60, 40)).astype(float)
    result = oracles.check(subject, {"x": x}, [oracles.torch_autograd(torch.relu)])
    assert result.verdict is oracles.Verdict.KINK


def matmul(backward):
    return oracles.manual(lambda a, b: (a @ b, (a, b)), backward, name="matmul")


def without_the_last_tile(cache, delta):
    a, b = cache
    n = len(a) // 32 * 32
    return {"a": delta @ b.T, "b": a[:n].T @ delta[:n]}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("rows", "words"), [(257, "the last step of delta"), (40, "from index 32 on along axis 0")])
def test_what_a_part_shows_must_be_true_of_the_whole(rows, words, dtype):
    """A part smaller than a tile has a gradient of zero; the whole is off by the last tile's rows."""
    primals = {"a": drawn(rows, 48).astype(dtype), "b": drawn(48, 33).astype(dtype)}
    refused = refusal(matmul(without_the_last_tile), primals, lambda a, b: a @ b)
    assert refused.result.reduced
    assert "every entry is zero" not in refused.diagnosis
    assert words in refused.diagnosis


def half_the_last_tile(cache, delta):
    a, b = cache
    n = len(a) // 32 * 32
    return {"a": delta @ b.T, "b": a[:n].T @ delta[:n] + 0.5 * a[n:].T @ delta[n:]}


def test_a_factor_of_a_part_is_not_that_of_the_whole():
    primals = {"a": drawn(70, 48), "b": drawn(48, 33)}
    refused = refusal(matmul(half_the_last_tile), primals, lambda a, b: a @ b)
    assert refused.result.reduced
    assert "every entry" not in refused.diagnosis


@pytest.mark.parametrize(
    ("backward", "words"),
    [
        (lambda c, d: {"a": d @ c[1].T, "b": 0 * c[1]}, "every entry is zero"),
        (lambda c, d: {"a": d @ c[1].T, "b": c[0].T @ d / len(d)}, "a mean where a sum belongs"),
        (lambda c, d: {"a": d @ c[1].T, "b": c[0].T @ d * (np.arange(33) != 7)}, "wrong only at index 7 along axis 1"),
    ],
)
def test_what_is_true_of_the_whole_is_named(backward, words):
    refused = refusal(matmul(backward), {"a": drawn(70, 48), "b": drawn(48, 33)}, lambda a, b: a @ b)
    assert words in refused.diagnosis


@pytest.mark.parametrize(
    ("dtype", "change", "words"),
    [
        ("float64", lambda dx: dx - dx.mean(0), "the same number all along axis 0"),
        ("float16", lambda dx: dx - dx.mean(0), "the same number all along axis 0"),
        ("float64", lambda dx: dx * (np.arange(dx.shape[1]) != 7), "(400 of 80000 entries)"),
    ],
)
def test_a_true_pattern_of_a_part_is_found_in_many_entries_too(dtype, change, words):
    """Few samples of rounding refuse some of many right entries; in 16 bits an error of some tolerances is gross."""
    primals = {n: a.astype(dtype) for n, a in norm_point(400, 200).items()}
    assert words in refusal(layer_norm(change), primals, layer_norm_reference).diagnosis
