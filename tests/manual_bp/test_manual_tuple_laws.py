"""The laws of the contract where a layer has several inputs or outputs, integers, state or randomness."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import manual_bp as m
from manual_bp.protocol import as_tuple, inputs_of, outputs_of, untupled

FLOATS = [np.float16, np.float32, np.float64, np.longdouble]
ATTENTION = m.MultiHeadAttention(4, 2, masked=True, score_bias=True)
# Each with the shape of one row of every input; a shape of integers below 3 is marked by a set.
LAYERS = {
    m.Embedding(3, 2, padding_idx=1): {"z": {(4,)}},
    m.Dropout(0.25): {"z": (5,)},
    m.LSTM(2, 3, n_layers=2, bidirectional=True, lengths=True): {
        **{"z": (3, 2), "h": (4, 3), "c": (4, 3)},
        "lengths": {()},
    },
    m.GRU(2, 3): {"z": (2, 2), "h": (1, 3)},
    ATTENTION: {"z": (3, 4), "mask": {(2, 3, 3)}, "score_bias": (2, 3, 3)},
    m.MultiHeadAttention(4, 1, (2, 3), causal=True): {"z": (3, 4), "k": (2, 2), "v": (2, 3)},
    m.Residual(ATTENTION): {"z": (3, 4), "mask": {(2, 3, 3)}, "score_bias": (2, 3, 3)},
    m.Parallel(m.Identity(), m.Dropout(0.5), axis=-1): {"z": (3,)},
    m.Rowwise(m.Sequential(m.Linear(4, 2), m.Softmax())): {"z": (2, 4)},
    m.Sequential(m.Embedding(3, 2), m.Residual(m.Dropout(0.5)), m.GRU(2, 2)): {"z": {(3,)}, "2.h": (1, 2)},
}


def drawn(layer, n_rows, dtype):
    """Parameters, inputs but for generators, and a delta for each output."""
    rng = np.random.default_rng(n_rows)
    inputs = {}
    for name, shape in LAYERS[layer].items():
        if isinstance(shape, set):
            values = rng.integers(0, 3, (n_rows, *next(iter(shape))))
            inputs[name] = values > 0 if name == "mask" else values
        else:
            inputs[name] = rng.standard_normal((n_rows, *shape)).astype(dtype)
    params = layer.init(rng, dtype)
    y, _ = layer.forward(params, given(layer, inputs))
    return params, inputs, tuple(rng.standard_normal(part.shape).astype(dtype) for part in as_tuple(y))


def given(layer, inputs):
    return untupled(tuple(inputs[n] if n in inputs else np.random.default_rng(7) for n in inputs_of(layer)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n_rows", [0, 1, 4])
@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_tuple_layers_keep_the_laws(layer, n_rows, dtype):
    params, inputs, delta = drawn(layer, n_rows, dtype)
    arguments = [*inputs.values(), *delta, *params.values()]
    before = copy.deepcopy(arguments)
    for array in arguments:
        array.flags.writeable = False
    y, cache = layer.forward(params, given(layer, inputs))
    dz, dparams = layer.backward(cache, untupled(delta))
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda _: layer.backward(cache, untupled(delta)), range(2)))
    ys, cotangents = as_tuple(y), dict(zip(inputs_of(layer), as_tuple(dz), strict=True))
    assert len(ys) == len(outputs_of(layer))
    for name, d in cotangents.items():
        real = name in inputs and inputs[name].dtype.kind == "f"
        assert (d is None) == (not real)
        assert d is None or d.shape == inputs[name].shape
    assert {n: g.shape for n, g in dparams.items()} == {n: p.shape for n, p in params.items()}
    results = [*ys, *(d for d in cotangents.values() if d is not None), *dparams.values()]
    assert {a.dtype for a in results} == {np.dtype(dtype)}
    everything = arguments + results
    for i, one in enumerate(everything):
        assert not any(np.shares_memory(one, other) for other in everything[:i])
    for other_dz, other_grads in again:
        for one, other in zip(
            (*as_tuple(dz), *dparams.values()), (*as_tuple(other_dz), *other_grads.values()), strict=True
        ):
            assert one is other is None or np.array_equal(one, other)
    for array, old in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, old, strict=True)
    if n_rows == 0:
        assert not any(g.any() for g in dparams.values())


@pytest.mark.parametrize("layer", [x for x in LAYERS if isinstance(x, m.LSTM | m.GRU | m.MultiHeadAttention)], ids=repr)
def test_halves_are_computed_in_singles_and_rounded_once(layer):
    params, inputs, delta = drawn(layer, 4, np.float16)

    def run(dtype):
        own, at = ({n: as_dtype(a, dtype) for n, a in named.items()} for named in (params, inputs))
        y, cache = layer.forward(own, given(layer, at))
        dz, grads = layer.backward(cache, untupled(tuple(as_dtype(d, dtype) for d in delta)))
        return [a.astype(np.float16) for a in (*as_tuple(y), *as_tuple(dz), *grads.values()) if a is not None]

    for half, single in zip(run(np.float16), run(np.float32), strict=True):
        np.testing.assert_array_equal(half, single)


def as_dtype(array, dtype):
    return array.astype(dtype) if array.dtype.kind == "f" else array
