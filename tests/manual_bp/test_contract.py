"""The contract of layers where the kit's properties do not look: float16 and longdouble, frozen fields, widths.

`tests/test_conformance.py` runs the nine properties on every layer in float64 and float32: nothing mutated or aliased,
any memory layout, zero rows.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

import manual_bp as m
from manual_bp.protocol import as_tuple, inputs_of, one_or_tuple

ATTENTION = m.MultiHeadAttention(4, 2, masked=True, score_bias=True)
ROW, IMAGE = {"z": (3,)}, {"z": (4, 5, 6)}
# Each layer with the shape of one row of every input; a shape in a set is one of integers below 3.
LAYERS = {
    m.Linear(3, 4): ROW, m.Identity(): ROW, m.Sigmoid(): ROW, m.Tanh(): ROW, m.ReLU(): ROW, m.LeakyReLU(0.25): ROW,
    m.Softmax(): ROW, m.GELU(): ROW, m.GELU("tanh"): ROW, m.SiLU(): ROW, m.Softplus(2.0, 3.5): ROW, m.PReLU(3): ROW,
    m.LogSoftmax(): ROW, m.SwiGLU(): IMAGE, m.Flatten(): IMAGE,
    m.Conv2d(4, 2, (2, 3), (1, 2), (1, 0), (2, 1), groups=2): IMAGE,
    m.ConvTranspose2d(4, 2, (2, 3), (3, 2), (1, 0), (2, 1), groups=2): IMAGE,
    m.MaxPool2d((2, 3), (1, 2), 1, ceil_mode=True): IMAGE,
    m.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False): IMAGE,
    m.LayerNorm((5, 6)): IMAGE, m.RMSNorm((4, 5, 6)): IMAGE,
    m.Embedding(3, 2, padding_idx=1): {"z": {(4,)}},
    m.Dropout(0.25): ROW,
    m.LSTM(2, 3, n_layers=2, bidirectional=True, lengths=True): {
        **{"z": (3, 2), "h": (4, 3), "c": (4, 3)}, "lengths": {()},
    },
    m.GRU(2, 3): {"z": (2, 2), "h": (1, 3)},
    ATTENTION: {"z": (3, 4), "mask": {(2, 3, 3)}, "score_bias": (2, 3, 3)},
    m.MultiHeadAttention(4, 1, (2, 3), causal=True): {"z": (3, 4), "k": (2, 2), "v": (2, 3)},
    m.Residual(ATTENTION): {"z": (3, 4), "mask": {(2, 3, 3)}, "score_bias": (2, 3, 3)},
    m.Parallel(m.Identity(), m.Dropout(0.5), axis=-1): ROW,
    m.Rowwise(m.Sequential(m.Linear(4, 2), m.Softmax())): {"z": (2, 4)},
    m.Sequential(m.Embedding(3, 2), m.Residual(m.Dropout(0.5)), m.GRU(2, 2)): {"z": {(3,)}, "2.h": (1, 2)},
}  # fmt: skip
OF_CLASSES = (m.SoftmaxCrossEntropy, m.CrossEntropy)
KINDS = (m.HalfSquaredError, m.Huber, m.BinaryCrossEntropyWithLogits, *OF_CLASSES)
LOSSES = [kind(reduction) for kind in KINDS for reduction in ("sum", "mean", "none")]


def draw_inputs(layer, n_rows, dtype):
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
    y, _ = layer.forward(params, inputs_with_rng(layer, inputs))
    return params, inputs, tuple(rng.standard_normal(part.shape).astype(dtype) for part in as_tuple(y))


def inputs_with_rng(layer, inputs):
    return one_or_tuple(tuple(inputs[n] if n in inputs else np.random.default_rng(7) for n in inputs_of(layer)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.longdouble])
@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_layers_keep_the_dtype(layer, dtype):
    params, inputs, delta = draw_inputs(layer, 4, dtype)
    y, cache = layer.forward(params, inputs_with_rng(layer, inputs))
    dz, dparams = layer.backward(cache, one_or_tuple(delta))
    cotangents = dict(zip(inputs_of(layer), as_tuple(dz), strict=True))
    results = [*as_tuple(y), *(d for d in cotangents.values() if d is not None), *dparams.values()]
    assert {a.dtype for a in results} == {np.dtype(dtype)}
    assert {n: g.shape for n, g in dparams.items()} == {n: p.shape for n, p in params.items()}
    assert all(d is None or d.shape == inputs[name].shape for name, d in cotangents.items())


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_backward_runs_in_two_threads(layer):
    params, inputs, delta = draw_inputs(layer, 4, np.float64)
    _, cache = layer.forward(params, inputs_with_rng(layer, inputs))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: layer.backward(cache, one_or_tuple(delta)), range(2))
    for one, other in zip(
        (*as_tuple(first[0]), *first[1].values()), (*as_tuple(second[0]), *second[1].values()), strict=True
    ):
        assert one is other is None or np.array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.longdouble])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_losses_keep_the_dtype(loss, dtype):
    y = np.array([[1.0, -2, 0], [3, 1, -1]], dtype)
    for target in (np.abs(y) / 4, *([np.array([2, 0])] if isinstance(loss, OF_CLASSES) else [])):
        value, cache = loss.forward(y, target)
        gradient = loss.backward(cache, np.ones(2, dtype) if loss.reduction == "none" else 1.0)
        assert value.dtype == gradient.dtype == dtype
        assert value.shape == ((2,) if loss.reduction == "none" else ())
        assert gradient.shape == y.shape


COMPOSITES = (m.Residual, m.Rowwise, m.Sequential)  # what passes from layer to layer is rounded


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("layer", [x for x in LAYERS if not isinstance(x, COMPOSITES)], ids=repr)
def test_half_precision_is_computed_in_float32_and_rounded_once(layer, half):
    params, inputs, delta = draw_inputs(layer, 40, half)
    rng = np.random.default_rng(0)  # what `init` sets to zero would hide a rounding before it is added
    params = {name: (p + rng.standard_normal(p.shape)).astype(half) for name, p in params.items()}

    def run(dtype):
        own, at = ({n: as_dtype(a, dtype) for n, a in named.items()} for named in (params, inputs))
        y, cache = layer.forward(own, inputs_with_rng(layer, at))
        dz, grads = layer.backward(cache, one_or_tuple(tuple(as_dtype(d, dtype) for d in delta)))
        return [a.astype(half) for a in (*as_tuple(y), *as_tuple(dz), *grads.values()) if a is not None]

    for actual, single in zip(run(half), run(np.float32), strict=True):
        np.testing.assert_array_equal(actual.astype(np.float32), single.astype(np.float32))


def as_dtype(array, dtype):
    return array if array.dtype.kind in "iub" else array.astype(dtype)


def test_float16_sums_do_not_overflow_in_losses():
    y = np.full((200, 2), 200, np.float16)
    value, cache = m.HalfSquaredError().forward(y, np.zeros_like(y))
    assert value == 40000  # ½ (200² + 200²), though the sum over the rows is 8 million
    assert m.HalfSquaredError().backward(cache)[0, 0] == 1


def test_float16_sums_do_not_overflow_in_layers():
    z = np.full((1, 1, 40, 40), 200, np.float16)
    assert m.AvgPool2d(40).forward({}, z)[0].tolist() == [[[[200]]]]
    _, cache = m.LayerNorm((40, 40), affine=False).forward({}, z)
    assert not m.LayerNorm((40, 40), affine=False).backward(cache, z)[0].any()


def test_elementwise_takes_any_rank():
    z = np.arange(-4.0, 4).reshape(2, 2, 2)
    for layer in (m.Identity(), m.Sigmoid(), m.Tanh(), m.ReLU(), m.LeakyReLU(), m.GELU(), m.SiLU(), m.Softplus()):
        assert layer.backward(layer.forward({}, z)[1], z)[0].shape == z.shape
        assert layer.forward({}, z[0, 0])[0].shape == (2,)


def test_kinks_are_declared():
    for layer in (m.ReLU(), m.LeakyReLU(0.25)):
        z = np.array([0.0, -0.0])
        dz, _ = layer.backward(layer.forward({}, z)[1], np.ones(2))
        np.testing.assert_array_equal(dz, np.full(2, layer.kink_convention[0.0]))
    preserving = "Identity Sigmoid Tanh ReLU LeakyReLU Softmax GELU SiLU Softplus PReLU LogSoftmax"
    assert all(getattr(m, n).preserves_shape for n in preserving.split())


def test_layers_are_frozen_values():
    assert m.Linear(2, 3) == m.Linear(2, 3)
    assert repr(m.Sequential(m.Linear(2, 3), m.ReLU())) == "Sequential(Linear(n_in=2, n_out=3, bias=True), ReLU())"
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.Linear(2, 3).n_in = 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_initial_weights_have_the_variance_of_he(dtype):
    params = m.Linear(400, 300).init(np.random.default_rng(0), dtype)
    assert params["W"].dtype == params["b"].dtype == dtype
    assert not params["b"].any()
    # The mean of n squares of normal numbers strays from 1 by sqrt(2/n) a time; never by six times that.
    n = params["W"].size
    assert abs(np.mean(params["W"].astype(float) ** 2) * 400 / 2 - 1) < 6 * (2 / n) ** 0.5


def test_a_layer_of_unknown_width_fits_anywhere():
    class Doubled:
        def init(self, rng, dtype=np.float64):
            return {}

        def forward(self, params, z):
            return np.hstack((z, z)), None

        def backward(self, cache, delta):
            return delta[:, : delta.shape[1] // 2] + delta[:, delta.shape[1] // 2 :], {}

    network = m.Sequential(m.Linear(2, 3), Doubled(), m.Linear(6, 1))
    params = network.init(np.random.default_rng(0))
    y, cache = network.forward(params, np.ones((2, 2)))
    assert network.backward(cache, y)[0].shape == (2, 2)
    assert m.Sequential(Doubled()).n_in is None
