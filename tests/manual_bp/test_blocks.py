"""What is computed block by block is what it is in one piece, in every layout."""

import numpy as np
import pytest

import manual_bp as m
from manual_bp._blocks import blocks, in_blocks, pointwise

LAYERS = (m.GELU(), m.GELU("tanh"), m.Sigmoid(), m.SiLU(), m.Softplus(), m.Softplus(2.0, 1.0), m.SwiGLU(), m.Tanh())


def layouts(a):
    """The same values in Fortran order, with a stride, reversed in memory, and read-only."""
    strided = np.zeros((*a.shape[:-1], 3 * a.shape[-1]), a.dtype)[..., ::3]
    strided[...] = a
    constant = a.copy()
    constant.flags.writeable = False
    return a, np.asfortranarray(a), strided, np.flip(np.flip(a).copy()), constant


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_large_arrays_are_many_small_ones(layer, dtype):
    """Exponentials are vectorized differently at odd places: 4 ulp, and a few roundings of numbers below 2^4."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3, 450_000 // (894 * np.dtype(dtype).itemsize), 298)).astype(dtype)
    z[0, 0, :3] = 0, 60, -60
    delta = rng.standard_normal(layer.forward({}, z[:1])[0].shape[1:]).astype(dtype)
    delta = np.stack([delta, -delta, 2 * delta])
    assert z.nbytes > 1 << 18
    rows = [layer.forward({}, row[None]) for row in z.reshape(-1, z.shape[-1])[::29]]
    deltas = delta.reshape(-1, delta.shape[-1])[::29]
    expected = [
        np.concatenate([y for y, _ in rows]),
        np.concatenate([layer.backward(cache, d[None])[0] for (_, cache), d in zip(rows, deltas, strict=True)]),
    ]
    for laid, laid_delta in zip(layouts(z), layouts(delta), strict=True):
        y, cache = layer.forward({}, laid)
        dz, _ = layer.backward(cache, laid_delta)
        np.testing.assert_array_equal(dz, layer.backward(cache, laid_delta)[0])
        for actual, of_rows in zip((y, dz), expected, strict=True):
            assert actual.dtype == dtype
            assert not any(np.shares_memory(actual, a) for a in (laid, laid_delta))
            result = actual.reshape(-1, actual.shape[-1])[::29]
            size = np.maximum(1, np.abs(of_rows))
            assert (np.abs(result - of_rows) <= np.finfo(dtype).eps * 2**4 * size).all()


def test_blocks_cover_the_first_axis_once():
    for shape in ((0, 5), (1, 5), (7, 0), (1000, 3), (5, 1 << 16)):
        x = np.zeros(shape)
        assert [i for rows in blocks(x, 100) for i in range(len(x))[rows]] == list(range(len(x)))


def test_several_results_and_inputs():
    def write(x, twice, square):
        np.add(x, x, out=twice)
        np.multiply(x, x, out=square)

    x = np.arange(1 << 17) * 1.0
    twice, square = pointwise(write, x.reshape(2, -1))
    np.testing.assert_array_equal(twice, 2 * x.reshape(2, -1))
    np.testing.assert_array_equal(square, x.reshape(2, -1) ** 2)
    sums = np.empty(1 << 16)
    in_blocks(lambda a, result: a.sum(axis=1, out=result), x.reshape(-1, 2), sums)
    np.testing.assert_array_equal(sums, x.reshape(-1, 2).sum(axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weight", [None, 3.0, tuple(range(500))])
def test_a_large_loss_is_that_of_its_rows(weight, dtype):
    """A sum of n numbers of one sign: n roundings in either order; exponentials of 4 ulp, and ten operations."""
    rng, eps = np.random.default_rng(0), np.finfo(dtype).eps
    loss = m.BinaryCrossEntropyWithLogits("none", weight)
    y, target = rng.standard_normal((333, 500)).astype(dtype), rng.random((333, 500)).astype(dtype)
    value, cache = loss.forward(y, target)
    gradient = loss.backward(cache, np.ones(len(y), dtype))
    for i in (0, 130, 131, 200, 332):
        of_row, row = loss.forward(y[i : i + 1], target[i : i + 1])
        assert abs(value[i] - of_row[0]) <= (500 + 20) * eps * abs(of_row[0])
        sizes = 1 + np.max(1 if weight is None else weight)
        assert (np.abs(gradient[i] - loss.backward(row, np.ones(1, dtype))[0]) <= 20 * eps * sizes).all()
