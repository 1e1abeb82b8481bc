"""The laws of the contract, for layers of several axes: every dtype kept, nothing mutated or aliased, no rows."""

import copy

import numpy as np
import pytest

import manual_bp as m
from manual_bp.protocol import as_tuple, inputs_of, untupled

FLOATS = [np.float16, np.float32, np.float64, np.longdouble]
LAYERS = [
    m.Conv2d(4, 2, (2, 3), (1, 2), (1, 0), (2, 1), groups=2), m.Conv2d(4, 4, 2, padding="same", groups=4, bias=False),
    m.ConvTranspose2d(4, 2, (2, 3), (3, 2), (1, 0), (2, 1), groups=2), m.ConvTranspose2d(4, 1, 1, bias=False),
    m.MaxPool2d((2, 3), (1, 2), 1, ceil_mode=True), m.MaxPool2d(2, dilation=2),
    m.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), m.AvgPool2d(1),
    m.BatchNorm(4), m.BatchNorm(4, affine=False, training=False),
    m.LayerNorm((5, 6)), m.LayerNorm(6, affine=False), m.RMSNorm((4, 5, 6)), m.RMSNorm(6, affine=False),
    m.Flatten(),
]  # fmt: skip


def small_integers(rng, shape, dtype):
    return rng.integers(-3, 4, shape).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_layers_keep_the_laws(layer, rows, dtype):
    rng = np.random.default_rng(rows)
    params = {name: small_integers(rng, value.shape, dtype) for name, value in layer.init(rng).items()}
    state = [small_integers(rng, 4, dtype) ** 2 for _ in inputs_of(layer)[1:]]
    z = untupled((small_integers(rng, (rows, 4, 5, 6), dtype), *state))
    like = as_tuple(layer.forward(params, z)[0])
    delta = untupled(tuple(small_integers(rng, y.shape, dtype) for y in like))
    given = [*as_tuple(z), *as_tuple(delta), *params.values()]
    before = copy.deepcopy(given)
    for array in given:
        array.flags.writeable = False
    y, cache = layer.forward(params, z)
    dz, dparams = layer.backward(cache, delta)
    again, dparams_again = layer.backward(cache, delta)
    results = [*as_tuple(y), *as_tuple(dz), *as_tuple(again), *dparams.values(), *dparams_again.values()]
    assert {a.dtype for a in results} == {np.dtype(dtype)}
    assert [a.shape for a in as_tuple(dz)] == [a.shape for a in as_tuple(z)]
    assert {name: g.shape for name, g in dparams.items()} == {name: p.shape for name, p in params.items()}
    everything = given + results
    for i, one in enumerate(everything):
        assert not any(np.shares_memory(one, other) for other in everything[:i])
    for one, other in zip(as_tuple(dz), as_tuple(again), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    for array, old in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, old, strict=True)
    if rows == 0:
        assert not any(g.any() for g in dparams.values())


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_layers_are_frozen_values(layer):
    assert eval(repr(layer), vars(m)) == layer
    with pytest.raises(AttributeError):
        layer.kernel = 3


def test_half_precision_sums_do_not_overflow_on_the_way():
    z = np.full((1, 1, 40, 40), 200, np.float16)
    assert m.AvgPool2d(40).forward({}, z)[0].tolist() == [[[[200]]]]
    _, cache = m.LayerNorm((40, 40), affine=False).forward({}, z)
    assert not m.LayerNorm((40, 40), affine=False).backward(cache, z)[0].any()
