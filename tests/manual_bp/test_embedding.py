"""Embedding by its definition, and what it refuses."""

import re
from fractions import Fraction

import numpy as np
import pytest

import manual_bp as m


def by_definition(layer, W, z, delta):
    """(52) and (53), index by index, in exact fractions."""
    y = np.zeros((*z.shape, layer.n_out), object)
    dW = np.zeros(W.shape, object)
    for position in np.ndindex(z.shape):
        if z[position] != layer.padding_idx:
            y[position] = W[z[position]]
            dW[z[position]] = dW[z[position]] + delta[position]
    return y, dW


@pytest.mark.parametrize("padding_idx", [None, 0, 4])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (23,), (3, 2), (2, 0, 3), (4, 5, 6)])
@pytest.mark.parametrize("named", [5, 1])
def test_embedding_matches_its_definition(shape, named, padding_idx):
    rng, layer = np.random.default_rng(len(shape)), m.Embedding(5, 2, padding_idx)
    W, z = rng.integers(-9, 10, (5, 2)), np.asarray(rng.integers(0, named, shape))
    delta = rng.integers(-9, 10, (*shape, 2))
    W, delta = (np.vectorize(Fraction, otypes=[object])(a, 7) for a in (W, delta))
    y, cache = layer.forward({"W": W}, z)
    none, grads = layer.backward(cache, delta)
    expected, dW = by_definition(layer, W, z, delta)
    assert none is None
    assert np.array_equal(y, expected)
    assert np.array_equal(grads["W"], dW)


def test_sums_are_pairwise():
    """Thousands of equal terms in float32: adding one by one would be off by their number times the roundoff."""
    layer, z = m.Embedding(2, 1), np.zeros(2**14, np.int8)
    delta = np.full((2**14, 1), 0.1, np.float32)
    _, cache = layer.forward(layer.init(np.random.default_rng(0), np.float32), z)
    assert layer.backward(cache, delta)[1]["W"][0, 0] == np.float32(0.1) * 2**14
    half = delta.astype(np.float16)
    _, cache = layer.forward(layer.init(np.random.default_rng(0), np.float16), z)
    assert layer.backward(cache, half)[1]["W"][0, 0] == np.float16(np.float32(half[0, 0]) * 2**14)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_all_integer_dtypes_index(dtype):
    layer = m.Embedding(3, 2, 1)
    params = layer.init(np.random.default_rng(0), np.float32)
    assert not params["W"][1].any()
    y, _ = layer.forward(params, np.array([[2, 1], [0, 0]], dtype))
    assert y.shape == (2, 2, 2)
    assert y.dtype == np.float32
    assert np.array_equal(y[0, 0], params["W"][2])


def refuses(error, message, call, *args):
    with pytest.raises(error, match=re.escape(message)):
        call(*args)


def test_embedding_refuses():
    layer, W = m.Embedding(3, 2), np.ones((3, 2))
    f = layer.forward
    refuses(ValueError, "Embedding: n_entries", m.Embedding, 0, 2)
    refuses(ValueError, "Embedding: padding_idx", m.Embedding, 3, 2, 3)
    refuses(ValueError, "Embedding: padding_idx", m.Embedding, 3, 2, -1)
    refuses(TypeError, "Embedding: padding_idx", m.Embedding, 3, 2, 1.0)
    z = np.array([[0, 2], [3, -1]])
    refuses(ValueError, "Embedding.forward: z", f, {"W": W}, z)
    refuses(ValueError, "Embedding.forward: z", f, {"W": W}, np.array([[0, -1]]))
    refuses(TypeError, "Embedding.forward: z", f, {"W": W}, W)
    refuses(TypeError, "Embedding.forward: z", f, {"W": W}, 1)
    refuses(ValueError, "Embedding.forward: params['W']", f, {"W": W.T}, z % 3)
    refuses(TypeError, "Embedding.forward: params['W']", f, {"W": z}, z % 3)
    refuses(ValueError, "Embedding.forward: params", f, {}, z % 3)
    _, cache = f({"W": W}, z % 3)
    refuses(ValueError, "Embedding.backward: delta", layer.backward, cache, W)
