"""Pooling and flattening from their definitions, element by element, in exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from exact import exactly, filled, fractions, seeds
from hypothesis import given
from hypothesis import strategies as st

import manual_bp as m
from oracles.references.pooling import avg_pool2d, max_pool2d


def places(layer, windows, extent):
    """For every window, the places (u, v) in the image or its padding that it holds, in the order of the kernel."""
    (kh, kw), (sh, sw), (a, b) = layer.kernel, layer.stride, layer.padding
    dh, dw = layer.dilation
    for p, q in np.ndindex(*windows):
        held = [(sh * p + dh * i - a, sw * q + dw * j - b) for i, j in np.ndindex(kh, kw)]
        yield p, q, [(u, v) for u, v in held if u < extent[0] + a and v < extent[1] + b]


def number_of_windows(layer, axis, n):
    """As many as fit, one after the other; with ceil_mode those that hang over, too, if they begin in the image."""
    k, s, a, d = layer.kernel[axis], layer.stride[axis], layer.padding[axis], layer.dilation[axis]
    span = d * (k - 1) + 1
    whole = sum(start + span <= n + 2 * a for start in range(0, n + 2 * a, s))
    over = layer.ceil_mode and (whole - 1) * s + span < n + 2 * a and whole * s < n + a
    return whole + over


@exactly
@given(case=st.composite(max_pool2d)(), seed=seeds)
def test_max_pooling_is_its_element_form(case, seed):
    layer, arrays, rng = filled(case, seed)
    z = arrays["z"]
    if seed % 2:
        z = z - z % 3  # ties
    y, cache = layer.forward({}, z)
    delta = fractions(rng, *y.shape)
    dz, _ = layer.backward(cache, delta)
    extent, Z = z.shape[2:], np.zeros_like(z)
    assert y.shape[2:] == tuple(number_of_windows(layer, axis, n) for axis, n in enumerate(extent))
    for p, q, around in places(layer, y.shape[2:], extent):
        held = [(u, v) for u, v in around if 0 <= u < extent[0] and 0 <= v < extent[1]]
        for n, c in np.ndindex(*z.shape[:2]):
            values = [z[n, c, u, v] for u, v in held]
            assert y[n, c, p, q] == max(values)  # (34)
            Z[n, c, *held[values.index(max(values))]] += delta[n, c, p, q]  # (35), the first of a tie
    np.testing.assert_array_equal(dz, Z)


@exactly
@given(case=st.composite(avg_pool2d)(), seed=seeds)
def test_average_pooling_is_its_element_form(case, seed):
    layer, arrays, rng = filled(case, seed)
    z = arrays["z"]
    y, cache = layer.forward({}, z)
    delta = fractions(rng, *y.shape)
    dz, _ = layer.backward(cache, delta)
    extent, Z = z.shape[2:], np.zeros_like(z)
    assert y.shape[2:] == tuple(number_of_windows(layer, axis, n) for axis, n in enumerate(extent))
    for p, q, around in places(layer, y.shape[2:], extent):
        held = [(u, v) for u, v in around if 0 <= u < extent[0] and 0 <= v < extent[1]]
        count = len(around) if layer.count_include_pad else len(held)
        for n, c in np.ndindex(*z.shape[:2]):
            assert y[n, c, p, q] == sum(z[n, c, u, v] for u, v in held) / Fraction(count)  # (36)
            for u, v in held:
                Z[n, c, u, v] += delta[n, c, p, q] / count  # (37)
    np.testing.assert_array_equal(dz, Z)


def test_an_average_without_overlap_is_a_convolution():
    rng = np.random.default_rng(0)
    z = fractions(rng, 2, 3, 4, 6)
    W = np.full((3, 1, 2, 3), Fraction(1, 6))
    by_convolution, _ = m.Conv2d(3, 3, (2, 3), (2, 3), groups=3, bias=False).forward({"W": W}, z)
    np.testing.assert_array_equal(m.AvgPool2d((2, 3)).forward({}, z)[0], by_convolution)


def test_first_entry_of_a_tie_gets_all_of_delta():
    layer = m.MaxPool2d(2, stride=1)
    y, cache = layer.forward({}, np.zeros((1, 1, 3, 3)))
    dz, _ = layer.backward(cache, np.array([[[[1.0, 10], [100, 1000]]]]))
    np.testing.assert_array_equal(dz, [[[[1, 10, 0], [100, 1000, 0], [0, 0, 0]]]])
    assert not y.any()
    signed = np.array([[[[-0.0, 0.0]]]])
    np.testing.assert_array_equal(m.MaxPool2d((1, 2)).backward(m.MaxPool2d((1, 2)).forward({}, signed)[1],
                                                               np.ones((1, 1, 1, 1)))[0], [[[[1, 0]]]])  # fmt: skip


@pytest.mark.parametrize("least", [-np.inf, np.finfo(np.float64).min])
def test_the_padding_is_never_chosen(least):
    z = np.full((1, 1, 2, 2), least)
    layer = m.MaxPool2d(3, padding=1, stride=1)
    y, cache = layer.forward({}, z)
    np.testing.assert_array_equal(y, z)
    dz, _ = layer.backward(cache, np.ones((1, 1, 2, 2)))
    np.testing.assert_array_equal(dz, [[[[4, 0], [0, 0]]]])


def test_nan_is_seen():
    z = np.array([[[[1.0, np.nan, 3.0, 2.0]]]])
    y, _ = m.MaxPool2d((1, 3), stride=1).forward({}, z)
    assert np.isnan(y).all()
    y, _ = m.MaxPool2d((1, 3), stride=1, padding=(0, 1)).forward({}, z)
    np.testing.assert_array_equal(y, [[[[np.nan, np.nan, np.nan, 3]]]])


def test_many_taps_are_told_apart():
    """More of them than a byte can number."""
    z = np.arange(400.0).reshape(1, 1, 20, 20)
    layer = m.MaxPool2d(20)
    y, cache = layer.forward({}, z)
    dz, _ = layer.backward(cache, y)
    assert y == 399
    assert np.argwhere(dz).tolist() == [[0, 0, 19, 19]]


def test_flatten():
    z = np.arange(24.0).reshape(2, 3, 4)
    y, cache = m.Flatten().forward({}, z)
    np.testing.assert_array_equal(y, [range(12), range(12, 24)])
    np.testing.assert_array_equal(m.Flatten().backward(cache, y)[0], z)
    assert m.Flatten().forward({}, np.zeros((0, 3, 4)))[0].shape == (0, 12)
    assert m.Flatten().forward({}, np.zeros(5))[0].shape == (5, 1)
