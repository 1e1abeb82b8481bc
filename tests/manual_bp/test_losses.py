"""The losses against their definitions: by hand where a is ¼, in exact fractions, and in fifty decimal digits."""

import re
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from exact import fractions
from hypothesis import given, settings
from hypothesis import strategies as st

import manual_bp as m

W = (0.5, 2.0, 0.0, 1.0)


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_the_plain_case_is_softmax_cross_entropy(reduction):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((5, 4)) * 20
    delta = rng.standard_normal(5) if reduction == "none" else 1.7
    for target in (rng.integers(4, size=5), rng.exponential(size=(5, 4))):
        general, plain = (kind(reduction) for kind in (m.CrossEntropy, m.SoftmaxCrossEntropy))
        (value, cache), (expected, plain_cache) = general.forward(y, target), plain.forward(y, target)
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(general.backward(cache, delta), plain.backward(plain_cache, delta))


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("weights", [None, W, (0.0,) * 4])
def test_equal_logits_are_read_off_by_hand(smoothing, temperature, weights):
    """With y = 0 every a is ¼, and (90) to (92) are exact in powers of two but for log 4, which is factored out."""
    loss = m.CrossEntropy("mean", weights, ignore_index=7, smoothing=smoothing, temperature=temperature)
    classes = np.array([[0, 7, 3], [1, 2, 7]])
    w = np.ones(4) if weights is None else np.array(weights)
    wq = w * ((1 - smoothing) * (classes[..., None] == np.arange(4)) + smoothing / 4) * (classes != 7)[..., None]
    total = w[classes[classes != 7]].sum()
    value, cache = loss.forward(np.zeros((2, 4, 3)), classes)
    assert value == (np.log(4) * wq.sum() / total if total else 0)
    expected = (0.25 * wq.sum(axis=-1, keepdims=True) - wq) / temperature / (total or 1)
    np.testing.assert_array_equal(loss.backward(cache), np.moveaxis(expected, -1, 1))


def test_smoothed_classes_are_smoothed_shares():
    rng = np.random.default_rng(1)
    y, classes = rng.standard_normal((6, 4)), rng.integers(4, size=6)
    loss = m.CrossEntropy("sum", W, smoothing=0.125)
    by_class, by_share = loss.forward(y, classes), loss.forward(y, np.eye(4)[classes])
    assert by_class[0] == by_share[0]
    np.testing.assert_array_equal(loss.backward(by_class[1]), loss.backward(by_share[1]))


def test_positions_are_rows_of_a_matrix():
    rng = np.random.default_rng(2)
    y, classes = rng.standard_normal((2, 3, 4, 2)), rng.integers(-1, 3, size=(2, 4, 2))
    rows, flat = np.moveaxis(y, 1, -1).reshape(-1, 3), classes.ravel()
    for reduction in ("none", "sum", "mean"):
        loss = m.CrossEntropy(reduction, W[:3], ignore_index=-1, smoothing=0.1)
        (value, cache), (expected, flat_cache) = loss.forward(y, classes), loss.forward(rows, flat)
        np.testing.assert_array_equal(np.ravel(value), np.ravel(expected))
        delta = rng.standard_normal(classes.shape) if reduction == "none" else 1.0
        gradient = loss.backward(cache, delta)
        assert gradient.shape == y.shape
        as_rows = np.moveaxis(gradient, 1, -1).reshape(-1, 3)
        np.testing.assert_array_equal(
            as_rows, loss.backward(flat_cache, np.ravel(delta) if reduction == "none" else delta)
        )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ignored_rows_may_hold_any_values(dtype):
    y = np.array([[1, 2], [np.nan, np.nan], [3, 1]], dtype)
    loss = m.CrossEntropy("none", ignore_index=-100)
    value, cache = loss.forward(y, np.array([0, -100, 1]))
    gradient = loss.backward(cache, np.ones(3, dtype))
    assert value[1] == 0
    assert not gradient[1].any()
    assert np.isfinite(gradient).all()
    for smoothing in (0.0, 0.5):
        mean = m.CrossEntropy(ignore_index=-100, smoothing=smoothing)
        value, cache = mean.forward(y, np.full(3, -100))
        assert value == 0
        assert not mean.backward(cache).any()


def test_cross_entropy_refuses():
    loss = m.CrossEntropy
    refuses(ValueError, "reduction", loss, "avg")
    refuses(ValueError, "CrossEntropy: class_weights[1]", loss, class_weights=[1, -1])
    refuses(TypeError, "CrossEntropy: class_weights", loss, class_weights=2.0)
    refuses(TypeError, "CrossEntropy: ignore_index", loss, ignore_index=1.0)
    refuses(ValueError, "CrossEntropy: smoothing", loss, smoothing=1.5)
    refuses(ValueError, "CrossEntropy: temperature", loss, temperature=0)
    y, classes = np.zeros((2, 3, 4)), np.zeros((2, 4), int)
    f = loss().forward
    refuses(
        ValueError,
        "CrossEntropy.forward: y",
        f,
        y[0, :, 0],
        classes,
    )
    refuses(ValueError, "target", f, y, classes.T)
    refuses(
        TypeError,
        "CrossEntropy.forward: target",
        f,
        y,
        classes * 1.0,
    )
    refuses(
        ValueError,
        "got 3 at row 1, column 2",
        f,
        y,
        classes + 3 * (np.arange(8) == 6).reshape(2, 4),
    )
    refuses(
        ValueError,
        "got -2 at row 0, column 1",
        loss(ignore_index=0).forward,
        y,
        classes - 2 * (np.arange(8) == 1).reshape(2, 4),
    )
    refuses(ValueError, "y", loss(class_weights=(1, 2)).forward, y, classes)
    message = "CrossEntropy.forward: target"
    refuses(ValueError, message, loss(ignore_index=0).forward, y, y)
    nan = np.where(np.arange(24).reshape(y.shape) == 23, np.nan, 0)
    refuses(ValueError, "CrossEntropy.forward: target", f, y, nan)
    _, cache = loss("none").forward(y, classes)
    refuses(ValueError, "delta", loss("none").backward, cache, np.ones(2))


ROWS = [[0, 20, -15], [60, 0, 1], [1e4, -1e4, 0], [0.5, 0.25, 0.5], [-30, -80, 8]]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("pos_weight", [None, 2.5, (0.5, 0.0, 4.0)])
def test_binary_cross_entropy_survives_saturation(row, pos_weight):
    """8u for each of exp and log1p, and four operations, on the sum of the sizes of the terms."""
    y, t = np.float32([row]), np.float32([[1, 0, 0.25]])
    loss = m.BinaryCrossEntropyWithLogits("sum", pos_weight)
    value, cache = loss.forward(y, t)
    gradient = loss.backward(cache)
    weights = pos_weight if isinstance(pos_weight, tuple) else [pos_weight or 1] * 3
    u, least = Decimal(2) ** -24, Decimal(2) ** -146
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 50, -99999, 99999
        lost = Decimal(0)
        for j in range(3):
            z, q, p = Decimal(float(y[0, j])), Decimal(float(t[0, j])), Decimal(weights[j])
            positive, negative = p * q / (1 + z.exp()), (1 - q) / (1 + (-z).exp())
            exact = negative - positive
            assert abs(Decimal(float(gradient[0, j])) - exact) <= 14 * u * (positive + negative) + least
            # log(1 + e^z) of a tiny e^z is e^z: fifty digits lose it in the sum.
            soft = [x + (1 + (-x).exp()).ln() if x > 0 else x.exp() if x < -50 else (1 + x.exp()).ln() for x in (-z, z)]
            lost += p * q * soft[0] + (1 - q) * soft[1]
        assert abs(Decimal(float(value)) - lost) <= 24 * u * lost + least


def test_binary_cross_entropy_at_zero_by_hand():
    """s = ½ exactly: δ is ((1 − t) − pt)/2 over the rows."""
    y, t = np.zeros((2, 2)), np.array([[1, 0.5], [0, 0.25]])
    loss = m.BinaryCrossEntropyWithLogits("mean", (4.0, 2.0))
    value, cache = loss.forward(y, t)
    np.testing.assert_array_equal(loss.backward(cache, 2.0), ((1 - t) - np.array([4, 2]) * t) / 2)
    exact = Fraction(float(np.log(2))) * Fraction(4 + 1 + 0.5 + 1 + 0.5 + 0.75) / 2
    assert abs(Fraction(float(value)) - exact) <= 8 * exact / 2**53  # a product and seven sums


def test_binary_cross_entropy_refuses():
    loss, y = m.BinaryCrossEntropyWithLogits, np.zeros((2, 3))
    name = "BinaryCrossEntropyWithLogits"
    refuses(ValueError, f"{name}: pos_weight", loss, pos_weight=-1)
    refuses(ValueError, f"{name}: pos_weight[1]", loss, pos_weight=(1, -1))
    refuses(TypeError, f"{name}: pos_weight", loss, pos_weight="1")
    refuses(ValueError, f"{name}.forward: pos_weight", loss(pos_weight=(1, 2)).forward, y, y)
    refuses(ValueError, f"{name}.forward: target", loss().forward, y, np.array([[0, np.nan, 0]] * 2))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 4), n=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), eighths=st.integers(1, 30))
def test_huber_is_its_two_pieces_exactly(rows, n, seed, eighths):
    rng = np.random.default_rng(seed)
    threshold = Fraction(eighths, 8)
    y, target, cotangent = fractions(rng, rows, n), fractions(rng, rows, n), fractions(rng, rows)
    loss = m.Huber("none", threshold)
    value, cache = loss.forward(y, target)
    gradient = loss.backward(cache, cotangent)
    for i in range(rows):
        error = y[i] - target[i]
        assert value[i] == sum(
            e * e / 2 if abs(e) <= threshold else threshold * (abs(e) - threshold / 2) for e in error
        )
        assert list(gradient[i]) == [cotangent[i] * max(min(e, threshold), -threshold) for e in error]


def test_huber_far_out_does_not_overflow():
    y = np.array([[1e30, -3e38, 0.5]], np.float32)
    value, cache = m.Huber("sum").forward(y, np.zeros_like(y))
    assert value == np.float32(3e38) + np.float32(1e30)
    np.testing.assert_array_equal(m.Huber("sum").backward(cache), np.float32([[1, -1, 0.5]]))


def test_huber_refuses():
    for threshold in (0, -1.0):
        refuses(ValueError, "Huber: threshold", m.Huber, threshold=threshold)
    refuses(ValueError, "Huber: threshold", m.Huber, threshold=float("inf"))
